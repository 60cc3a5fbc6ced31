"""Trains a PointNet to tell solid shapes apart by their points, and draws clouds that are new to it with its answers.

python examples/classify_cloud.py            # ten shapes, a few minutes on two cores
python examples/classify_cloud.py --short    # a few steps
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcv.data import SOLIDS, synthetic_solids
from fastcv.models import create_model

matplotlib.use("Agg")
from matplotlib import pyplot as plt

POINTS, BATCH, HELD_OUT_SEED = 256, 16, 1_000_003


def main(words: list[str] | None = None) -> None:
    """Train, evaluate, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("clouds.png"), help="PNG file for the picture")
    parser.add_argument("--short", action="store_true", help="three steps")
    chosen = parser.parse_args(words)
    torch.manual_seed(0)
    model = create_model("pointnet", names=list(SOLIDS))
    train(model, steps=3 if chosen.short else 600)
    clouds, labels = batch(16 if chosen.short else 200, HELD_OUT_SEED)
    with torch.inference_mode():
        answers = model.eval()(clouds).argmax(1)
    print(f"right for {100 * (answers == labels).float().mean():.0f} % of {len(labels)} clouds of {len(SOLIDS)} shapes")
    draw(clouds[:8], labels[:8], answers[:8], chosen.output)


def batch(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return clouds (count, points, 3) and the labels of their shapes."""
    samples = synthetic_solids(count, points=POINTS, seed=seed)
    clouds, labels = zip(*(samples[index] for index in range(count)), strict=True)
    return torch.stack([cloud[:, :3] for cloud in clouds]), torch.tensor(labels)


def train(model: nn.Module, steps: int) -> None:
    """Take steps of AdamW, each with new clouds. fastcv.engine.Trainer does this with all that belongs to it."""
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for step in range(steps):
        clouds, labels = batch(BATCH, seed=step)
        loss = F.cross_entropy(model(clouds), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step}: loss {float(loss.detach()):.2f}")


def draw(clouds: Tensor, labels: Tensor, answers: Tensor, path: Path) -> None:
    """Draw clouds in two rows, coloured by height: the answer above each, in red where it is wrong."""
    figure, axes = plt.subplots(2, 4, figsize=(11, 6), layout="constrained", subplot_kw={"projection": "3d"})
    names = list(SOLIDS)
    for axis, cloud, label, answer in zip(axes.flat, clouds, labels.tolist(), answers.tolist(), strict=True):
        x, y, z = cloud.T.numpy()
        axis.scatter(x, y, z, c=z, s=9, cmap="turbo", depthshade=False)
        right = names[answer] if answer == label else f"{names[answer]}, not {names[label]}"
        axis.set_title(right, color="black" if answer == label else "red")
        axis.set(xticks=[], yticks=[], zticks=[], aspect="equal")
    figure.savefig(path, dpi=100)
    plt.close(figure)
    print(f"{path}: clouds, and what they were taken for")


if __name__ == "__main__":
    main()
