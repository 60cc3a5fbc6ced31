"""What ``fastcv train`` does for a model unless told otherwise: options with which a short command ends well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["with_recipe"]

# By model. "data_options" are by generator, and for these alone.
_RECIPES: dict[str, dict[str, Any]] = {
    "pointnet": {
        "batch": 32, "epochs": 6, "learning_rate": 2e-3,
        "data_options": {"solids": {"count": 9600, "points": 256, "held_out": 1000}},
    },
    "pointnet2": {
        "batch": 16, "epochs": 3, "learning_rate": 2e-3,
        "data_options": {"solids": {"count": 9600, "points": 256, "held_out": 1000}},
    },
    "voxnet": {
        "batch": 32, "epochs": 4, "learning_rate": 2e-3,
        "data_options": {"solids": {"count": 9600, "held_out": 1000}},
    },
    "sparse_unet": {
        "batch": 4, "epochs": 12, "learning_rate": 3e-3,
        "data_options": {"streets": {"count": 200, "held_out": 20}},
    },
}  # fmt: skip
_RECIPES["sparse_voxnet"] = _RECIPES["octnet"] = _RECIPES["voxnet"]
_RECIPES["pointnet2_msg"] = _RECIPES["pointnet2"]

# In 500 steps of four scenes Mask R-CNN came to a mask AP of 0.19 (0.17 at a rate of 0.001), YOLO to a box AP of 0.082
# (0.074); U-Net learned less.
_SMALL_DETECTOR = {"learning_rate": 3e-3}


def with_recipe(name: str, data: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options given for a training of a model, with those of its recipe where there are none.

    Parameters
    ----------
    name : str
        The model.
    data : str
        What it is trained on.
    given : dict
        Options of :class:`fastcv.cli.run_options.RunOptions`. A recipe's rate is for AdamW, and for a model without
        weights, which should not be lost.
    """
    is_small_detector = name.endswith("rcnn_tiny_fpn") or name.startswith("yolo")
    recipe = dict(_SMALL_DETECTOR if is_small_detector else _RECIPES.get(name, {}))
    if given.get("weights") or given.get("optimizer", "adamw") != "adamw":
        recipe.pop("learning_rate", None)
    usual, chosen = dict(recipe.pop("data_options", {}).get(data, {})), given.get("data_options", {})
    if "count" in chosen:  # it is that of all splits
        usual.pop("held_out", None)
    options = {**usual, **chosen}
    return {**recipe, **given, **({"data_options": options} if options else {})}
