"""What augmentation by rotations buys: VoxNet trained on shapes in one pose, and asked about turned ones.

``python -m bench.rotations`` trains three networks for a minute, each on the same 3000 shapes: all upright and
facing one way; turned around the z axis; and turned in any way. It prints, and writes to
``bench/results/rotations.json``, the accuracy of each on held-out shapes in these three kinds of pose.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from fastcv.data import synthetic_solids
from fastcv.engine import ClassificationTask, Trainer, TrainOptions
from fastcv.engine.memory import keep_freed_memory
from fastcv.models import create_model

RESULTS = Path(__file__).parent / "results"
POSES: dict[str, dict[str, Any]] = {
    "one pose": {"turn": 0.0, "tilt": 0.0},
    "around z": {"turn": 360.0, "tilt": 0.0},
    "any": {"turn": 360.0, "tilt": 180.0},
}
POINTS, TRAINED, HELD_OUT, EPOCHS = 512, 3000, 300, 2


def accuracies(trained_on: str) -> dict[str, float]:
    """Train on shapes in one kind of pose, and return the accuracy in each."""
    data: Any = synthetic_solids(TRAINED, POINTS, **POSES[trained_on])
    torch.manual_seed(0)
    model = create_model("sparse_voxnet", names=data.names)
    options = TrainOptions(epochs=EPOCHS, batch=32, learning_rate=2e-3, plots=False, device="cpu")
    Trainer(ClassificationTask(), model, data, None, options).train()
    found = {}
    for name, pose in POSES.items():
        held_out: Any = synthetic_solids(HELD_OUT, POINTS, seed=1, **pose)
        trainer = Trainer(ClassificationTask(), model, data, held_out, options)
        found[name] = round(trainer.evaluate(model)["accuracy"], 3)
    return found


def main() -> int:
    keep_freed_memory()
    table = {}
    print(f"{'trained on':<12}" + "".join(f"{name:>12}" for name in POSES))
    for name in POSES:
        table[name] = accuracies(name)
        print(f"{name:<12}" + "".join(f"{table[name][pose]:>12.1%}" for pose in POSES), flush=True)
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(found)}" for name, found in table.items())
    (RESULTS / "rotations.json").write_text(f'{{"accuracy, trained on and asked about": {{\n{rows}\n}}}}\n')
    return 0


if __name__ == "__main__":
    sys.exit(main())
