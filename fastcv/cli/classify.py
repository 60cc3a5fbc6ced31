"""``fastcv classify``: what shape a point cloud is, by a trained network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from fastcv.cli.clouds import INK, as_array, describe, draw_points, read_cloud, view_of
from fastcv.cli.errors import fail, reason
from fastcv.cli.options import check_output, seed_option
from fastcv.data import to_unit_ball
from fastcv.data.files import replaced_file
from fastcv.models import load_model, read_card

SHOWN = 5
console = Console(highlight=False)


def classify(
    cloud: Annotated[Path, typer.Argument(help="File: .off .ply .pcd .bin .npy .npz .txt .xyz; or a shape, as cone.")],
    weights: Annotated[Path | None, typer.Option(help="Weights of a trained classifier, .safetensors.")] = None,
    output: Annotated[Path, typer.Option(help="PNG file for the picture.")] = Path("classified.png"),
    points: Annotated[int, typer.Option(min=1, help="Points that the network sees, chosen at random.")] = 1024,
    columns: Annotated[int | None, typer.Option(min=3, help="Values per point in a .bin file.")] = None,
    seed: Annotated[int, seed_option("Random seed for the choice of points.", least=0)] = 0,
    drop_invalid: Annotated[bool, typer.Option(help="Leave out points that are not finite.")] = False,
) -> None:
    """Tell which of its classes a trained network takes a point cloud for, and draw the cloud."""
    if weights is None:
        fail(
            "give --weights FILE, a trained classifier of point clouds. To train one on generated shapes: "
            "fastcv train solids --model pointnet"
        )
    check_output(output, "--output", ".png")
    model = load_classifier(weights)
    cloud_points = read_cloud(cloud, columns, max(points, 4096), seed, drop_invalid)
    scores = probabilities(model, cloud_points, points, seed)
    names = {label: model.card.names.get(label, f"class {label}") for label in range(len(scores))}
    best = scores.argsort(descending=True)[:SHOWN].tolist()
    try:
        with replaced_file(output) as file:
            draw(cloud_points, [(names[label], float(scores[label])) for label in best], cloud.name, file)
    except OSError as error:
        fail(f"cannot write {output}: {reason(error)}")
    console.print(f"{cloud}: {describe(cloud_points)}", soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    table.add_column("class")
    table.add_column("probability", justify="right")
    for label in best:
        table.add_row(names[label], f"{float(scores[label]):.1%}")
    console.print(table)
    console.print(f"{output}: the cloud and its class", soft_wrap=True)


def load_classifier(path: Path) -> Any:
    """Return the classifier that a file holds, or end the command."""
    try:
        card = read_card(path)
        if card is not None and card.task != "classification":
            fail(f"{path} holds {card.model}, for {card.task}: a classifier of point clouds is needed")
        return load_model(path).eval()
    except (OSError, ValueError, ImportError, TypeError) as error:
        fail(reason(error))


def probabilities(model: Any, cloud: Tensor, count: int, seed: int) -> Tensor:
    """Return the probability of each class. The cloud is brought to the unit ball, and points are chosen from it."""
    wanted = int(getattr(getattr(model, "feat", model), "channels", getattr(model, "in_channels", 3)))
    if cloud.shape[1] < wanted:
        fail(f"the network wants {wanted} columns per point, the cloud has {cloud.shape[1]}")
    order = torch.randperm(len(cloud), generator=torch.Generator().manual_seed(seed))
    order = order.repeat(-(-count // len(cloud)))[:count]  # fewer points come more than once
    with torch.inference_mode():
        logits: Tensor = model(to_unit_ball(cloud[:, :wanted])[order][None])
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
