"""``fastcv classify``: what shape a point cloud is, by a trained network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from fastcv.cli.clouds import INK, as_array, describe, draw_points, read_cloud, view_of
from fastcv.cli.errors import fail, reason
from fastcv.cli.labelled import draw_labels
from fastcv.cli.options import check_output, seed_option
from fastcv.data import to_unit_ball
from fastcv.data.files import replaced_file
from fastcv.models import load_model, read_card

SHOWN = 5
SHAPE, SCAN = "pointnet_solids", "sparse_unet_streets"  # weights that come with the package
console = Console(highlight=False)


def classify(
    cloud: Annotated[
        Path, typer.Argument(help="File: .off .ply .pcd .bin .npy .npz .txt .xyz; or a shape, as cone, or street.")
    ],
    weights: Annotated[
        Path | None,
        typer.Option(help="Weights, .safetensors. Default: sparse_unet_streets for a scan, else pointnet_solids."),
    ] = None,
    output: Annotated[Path, typer.Option(help="PNG file for the picture.")] = Path("classified.png"),
    labels: Annotated[Path | None, typer.Option(help="NPY file for the class of each point, of a street.")] = None,
    points: Annotated[
        int | None, typer.Option(min=1, help="Points that the network sees. Default: as in its training, else 1024.")
    ] = None,
    columns: Annotated[int | None, typer.Option(min=3, help="Values per point in a .bin file.")] = None,
    seed: Annotated[int, seed_option("Random seed for the choice of points.", least=0)] = 0,
    drop_invalid: Annotated[bool, typer.Option(help="Leave out points that are not finite.")] = False,
) -> None:
    """Tell which of its classes a trained network takes a cloud for, or each of its points, and draw it."""
    check_output(output, "--output", ".png")
    if labels is not None:
        check_output(labels, "--labels", ".npy")
    model = load_point_model(weights or Path(SCAN if cloud.name == "street" or cloud.suffix == ".bin" else SHAPE))
    names = {label: model.card.names.get(label, f"class {label}") for label in range(model.num_classes)}
    of_points = model.card.task == "point-segmentation"
    if labels is not None and not of_points:
        fail("--labels is for networks that classify each point, as sparse_unet_streets")
    points = points or trained_points(model)
    cloud_points = read_cloud(cloud, columns, None if of_points else max(points, 4096), seed, drop_invalid)
    table = Table(box=None, pad_edge=False)
    table.add_column("class")
    table.add_column("points" if of_points else "probability", justify="right")
    try:
        if of_points:
            found = labels_of(model, cloud_points)
            with replaced_file(output) as file:
                draw_labels(cloud_points, found, names, cloud.name, file)
            if labels is not None:
                with replaced_file(labels) as file, file.open("wb") as stream:
                    np.save(stream, found.numpy())
            for label, number in sorted(enumerate(found.bincount(minlength=len(names)).tolist()), key=lambda x: -x[1]):
                table.add_row(names[label], f"{number:,}")
        else:
            scores = probabilities(model, cloud_points, points, seed)
            best = scores.argsort(descending=True)[:SHOWN].tolist()
            with replaced_file(output) as file:
                draw(cloud_points, [(names[label], float(scores[label])) for label in best], cloud.name, file)
            for label in best:
                table.add_row(names[label], f"{float(scores[label]):.1%}")
    except OSError as error:
        fail(f"cannot write {output}: {reason(error)}")
    console.print(f"{cloud}: {describe(cloud_points)}", soft_wrap=True)
    console.print(table)
    console.print(
        f"{output}: the cloud and {'the classes of its points' if of_points else 'its class'}", soft_wrap=True
    )


def load_point_model(path: Path) -> Any:
    """Return the classifier of clouds or of their points that a file holds, or end the command."""
    try:
        card = read_card(path)
        if card is not None and card.task not in ("classification", "point-segmentation"):
            fail(f"{path} holds {card.model}, for {card.task}: a classifier of point clouds is needed")
        return load_model(path).eval()
    except (OSError, ValueError, ImportError, TypeError) as error:
        fail(reason(error))


def trained_points(model: Any) -> int:
    """Return how many points the clouds had that a network was trained on, where its card says so."""
    options = model.card.facts.get("options", {})
    points = options.get("data_options", {}).get("points") if isinstance(options, dict) else None
    return points if isinstance(points, int) and points > 0 else 1024


def _wanted(model: Any, cloud: Tensor) -> Tensor:
    """Return the columns that the network takes, or end the command."""
    wanted = int(getattr(getattr(model, "feat", model), "channels", getattr(model, "in_channels", 3)))
    if cloud.shape[1] < wanted:
        fail(f"the network wants {wanted} columns per point, the cloud has {cloud.shape[1]}")
    return cloud[:, :wanted]


def labels_of(model: Any, cloud: Tensor) -> Tensor:
    """Return the class (N,) of each point, as they come."""
    with torch.inference_mode():
        logits = model(_wanted(model, cloud)[None])
    return torch.as_tensor(logits[0].argmax(1))


def probabilities(model: Any, cloud: Tensor, count: int, seed: int) -> Tensor:
    """Return the probability of each class. The cloud is brought to the unit ball, and points are chosen from it."""
    seen = _wanted(model, cloud)
    order = torch.randperm(len(cloud), generator=torch.Generator().manual_seed(seed))
    order = order.repeat(-(-count // len(cloud)))[:count]  # fewer points come more than once
    with torch.inference_mode():
        logits: Tensor = model(to_unit_ball(seen)[order][None])
    return logits[0].softmax(0)


def draw(points: Tensor, found: list[tuple[str, float]], name: str, output: Path) -> None:
    """Draw the cloud, and the probabilities as bars beside it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=(10, 6.2))
    left = figure.add_axes((0.01, 0.02, 0.6, 0.9))
    xyz = as_array(points)
    draw_points(left, xyz, view_of(xyz))
    left.set_title(f"{name}: {len(points):,} points", color=INK, fontsize=13)
    right = figure.add_axes((0.72, 0.3, 0.24, 0.07 + 0.08 * len(found)))
    places = list(range(len(found)))[::-1]
    colours = ["#2a788e"] + ["#b8c4cc"] * (len(found) - 1)
    right.barh(places, [score for _, score in found], height=0.62, color=colours)
    right.set_yticks(places, [label for label, _ in found], fontsize=12, color=INK)
    for place, (_, score) in zip(places, found, strict=True):
        right.text(score + 0.02, place, f"{score:.1%}", va="center", fontsize=10, color=INK)
    right.set_xlim(0, 1.25)
    right.set_xticks([])
    for side in ("top", "right", "bottom"):
        right.spines[side].set_visible(False)
    right.tick_params(length=0)
    right.set_title(found[0][0], fontsize=18, color=INK, loc="left", pad=14, fontweight="bold")
    figure.savefig(output, dpi=110, format="png")
    plt.close(figure)
