"""Networks on voxels over the size of the grid, dense and sparse, with the same weights: time and memory.

fastcv's are made ready for inference by ``fastcv.optimize``. spconv has nothing like it on the CPU: there normalisation
and activation run on the features, as its layers are used.

``python -m bench.voxel_models`` writes ``bench/results/voxel_models.json`` and ``.png``. Each measurement has a process
of its own, for its peak of memory. spconv takes part where it is installed; where a run needs more memory than there
is, it is left out. A second run adds to what an earlier one found, so that spconv may come from another environment:
``python -m bench.voxel_models spconv``; then ``python -m bench.voxel_models plot`` draws anew.
"""

from __future__ import annotations

import importlib.util
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.machine import device_name
from fastcv import optimize
from fastcv.data import synthetic_solids
from fastcv.models.pointcloud import SparseUNet, SparseVoxNet, VoxNet, sparse_unet
from fastcv.models.pointcloud.voxel_input import flattened, mean_voxels
from fastcv.sparse import SparseConvTensor

RESULTS = Path(__file__).parent / "results"
SIDES = (32, 64, 128, 256, 512)
MODELS, FORMS = ("VoxNet", "SparseUNet"), ("dense", "fastcv", "spconv")
SECONDS, MEMORY = 2.0, 9e9
NEEDED = {"VoxNet": 48.0, "SparseUNet": 400.0}  # bytes per voxel of the dense forms, about: what is not tried
Call = Callable[[], Tensor]


def cloud(side: int) -> Tensor:
    """A torus with two points per square of the grid's side squared, which covers its surface."""
    return synthetic_solids(5, points=2 * side * side, occlusion=0.0, noise=0.0)[4][0][None]


def voxnet_dense(points: Tensor, side: int) -> Call:
    """Occupancy, both convolutions and the pooling: what comes after grows as the grid for both forms."""
    torch.manual_seed(0)
    model = VoxNet(10, grid=32).eval()
    model.grid, model.voxel_size = side, 2.2 / side

    def call() -> Tensor:
        x = F.leaky_relu_(model.conv1(model.occupancy(points)[:, None]), 0.1)
        return F.max_pool3d(F.leaky_relu_(model.conv2(x), 0.1), 2)

    return call


def voxnet_sparse(points: Tensor, side: int) -> Call:
    """The same as sites with features, which are not written into a grid: the next sparse layer would take them."""
    torch.manual_seed(0)
    model: Any = optimize(SparseVoxNet(10, grid=32))
    model.grid, model.voxel_size = side, 2.2 / side
    model._classify = lambda x: x

    def without_grid(x: SparseConvTensor, channels_first: bool = True) -> Tensor:
        return x.features.new_zeros(1, 32, 1, 1, 1)

    setattr(SparseConvTensor, "dense", without_grid)  # noqa: B010
    return lambda: model(points)


def voxnet_spconv(points: Tensor, side: int) -> Call:
    """The same layers of spconv, as differences from what empty space has."""
    import spconv.pytorch as spconv  # type: ignore[import-not-found,unused-ignore]

    torch.manual_seed(0)
    model = SparseVoxNet(10, grid=32).eval()
    conv1 = spconv.SparseConv3d(1, 32, 5, stride=2, bias=False)
    conv2, pool = spconv.SparseConv3d(32, 32, 3, bias=False), spconv.SparseMaxPool3d(2, 2)
    for ours, theirs in ((model.conv1, conv1), (model.conv2, conv2)):
        theirs.weight.data = ours.weight.data.permute(0, 2, 3, 4, 1).contiguous()
    bias1, bias2 = model.conv1.bias, model.conv2.bias
    assert bias1 is not None
    assert bias2 is not None
    empty = F.leaky_relu(bias1, 0.1)
    before = model.conv2.weight.sum((2, 3, 4)) @ empty + bias2

    def call() -> Tensor:
        rows, offsets = flattened(points)
        _, sites = mean_voxels(rows, 2.2 / side, model.range, offsets)
        x = conv1(spconv.SparseConvTensor(torch.ones(len(sites), 1), sites, [side] * 3, 1))
        x = conv2(x.replace_feature(F.leaky_relu(x.features + bias1, 0.1) - empty))
        x = pool(x.replace_feature(F.leaky_relu(x.features + before, 0.1)))
        features: Tensor = x.features
        return features

    return call


def unet(points: Tensor, side: int) -> tuple[SparseUNet, Tensor, Tensor]:
    """The network, and features and places of the occupied voxels."""
    torch.manual_seed(0)
    model = SparseUNet(6, 2.2 / side, [-1.1] * 3 + [1.1] * 3).eval()
    rows, offsets = flattened(points)
    return model, *mean_voxels(rows, 2.2 / side, model.range, offsets)


def unet_sparse(points: Tensor, side: int) -> Call:
    made, features, sites = unet(points, side)
    model: Any = optimize(made)
    return lambda: model.classify_voxels(SparseConvTensor(features, sites, made.cells, 1)).features


def unet_spconv(points: Tensor, side: int) -> Call:
    """The same module of spconv's layers."""
    import spconv.pytorch as spconv

    ours, features, sites = unet(points, side)
    block = sparse_unet.ResidualBlock
    layers = ("SubMConv3d", "SparseConv3d", "SparseInverseConv3d", "SparseSequential", "SparseBatchNorm", "SparseReLU")
    for name in layers:
        setattr(sparse_unet, name, getattr(spconv, name))
    setattr(sparse_unet, "ResidualBlock", type("Block", (block, spconv.SparseModule), {}))  # noqa: B010
    model = unet(points, side)[0]
    model.load_state_dict(ours.state_dict())
    return lambda: model.classify_voxels(spconv.SparseConvTensor(features, sites, model.cells, 1)).features


def unet_dense(points: Tensor, side: int) -> Call:
    """The same layers on the whole grid."""
    model, features, sites = unet(points, side)
    grid = SparseConvTensor(features, sites, model.cells, 1).dense()

    def conv(layer: Any, x: Tensor) -> Tensor:
        weight = layer.weight.permute(0, 4, 1, 2, 3)
        if layer.inverse:
            return F.conv_transpose3d(x, weight.transpose(0, 1), stride=2)
        return F.conv3d(x, weight, stride=layer.stride, padding=1 if layer.subm else 0)

    def norm(layer: Any, x: Tensor) -> Tensor:
        return F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias)

    def block(layer: Any, x: Tensor) -> Tensor:
        y = norm(layer.bn2, conv(layer.conv2, norm(layer.bn1, conv(layer.conv1, x)).relu_()))
        project = layer.project
        same = x if isinstance(project, nn.Identity) else F.conv3d(x, project.weight[:, :, None, None, None])
        return y.add_(same).relu_()

    def three(layers: Any, x: Tensor) -> Tensor:
        return norm(layers[1], conv(layers[0], x)).relu_()

    def call() -> Tensor:
        x, skipped = three(model.stem, grid), []
        for level, blocks in enumerate(model.encoder):
            for one in blocks._modules.values():
                x = block(one, x)
            if level < len(model.down):
                skipped.append(x)
                x = three(model.down[level], x)
        for level in reversed(range(len(model.up))):
            x = torch.cat([three(model.up[level], x), skipped.pop()], 1)
            for one in model.decoder[level]._modules.values():
                x = block(one, x)
        return F.conv3d(x, model.head.weight[:, :, None, None, None], model.head.bias)

    return call


MAKE: dict[tuple[str, str], Callable[[Tensor, int], Call]] = {
    ("VoxNet", "dense"): voxnet_dense,
    ("VoxNet", "fastcv"): voxnet_sparse,
    ("VoxNet", "spconv"): voxnet_spconv,
    ("SparseUNet", "dense"): unet_dense,
    ("SparseUNet", "fastcv"): unet_sparse,
    ("SparseUNet", "spconv"): unet_spconv,
}


def one(model: str, form: str, side: int) -> dict[str, float]:
    """Least processor time of several calls, and how much the peak of memory rose."""
    torch.set_num_threads(1)
    points = cloud(side)
    warm_up = MAKE[model, form](cloud(32), 32) if form != "spconv" or model == "VoxNet" else None
    with torch.inference_mode():
        if warm_up is not None:
            warm_up()
    call = MAKE[model, form](points, side)  # not in there: nobody counts the versions of such weights
    with torch.inference_mode():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        best, calls, end = float("inf"), 0, time.perf_counter() + SECONDS
        while calls < 2 or (time.perf_counter() < end and calls < 50):
            start = time.process_time()
            call()
            best, calls = min(best, time.process_time() - start), calls + 1
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"seconds": float(f"{best:.4g}"), "megabytes": float(f"{max(peak, 0) / 1024:.4g}")}


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw time and memory over the side of the grid, a column for each model."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    colours = {"dense": "#b5651d", "fastcv": "#1f5f99", "spconv": "#8a8f98"}
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.4), layout="constrained", sharex=True)
    for column, model in enumerate(MODELS):
        for row, (value, label) in enumerate((("seconds", "seconds"), ("megabytes", "memory, MB"))):
            here = axes[row, column]
            for form in FORMS:
                points = [p for p in result["points"] if (p["model"], p["form"]) == (model, form)]
                label_of = "fastcv, sparse" if form == "fastcv" else "spconv, sparse" if form == "spconv" else "dense"
                here.plot(
                    [p["side"] for p in points], [p[value] for p in points], "o-", color=colours[form], label=label_of
                )
            here.set_xscale("log", base=2)
            here.set_yscale("log")
            here.set_ylabel(label)
            here.grid(alpha=0.25)
        axes[0, column].set_title(f"{model}, one cloud", loc="left", fontsize=11)
        axes[1, column].set_xticks(SIDES, [f"{side}³" for side in SIDES])
    axes[0, 0].legend(frameon=False)
    figure.suptitle(f"{result['device']}, one thread, processor time", fontsize=9, x=0.01, ha="left")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main(forms: list[str]) -> int:
    """Measure these forms, or all that are installed, in processes of their own."""
    path = RESULTS / "voxel_models.json"
    held = json.loads(path.read_text(encoding="utf-8"))["points"] if path.exists() else []
    found = {(p["model"], p["form"], p["side"]): p for p in held}
    for model, form in MAKE:
        for side in SIDES if not forms or form in forms else ():
            if form == "dense" and NEEDED[model] * side**3 > MEMORY:
                print(f"{model} {form} {side}³: would need more than {MEMORY / 1e9:.0f} GB", flush=True)
                continue
            command = [sys.executable, "-m", "bench.voxel_models", "--one", model, form, str(side)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{model} {form} {side}³: {(done.stderr.strip().splitlines() or ['stopped'])[-1]}", flush=True)
                continue
            found[model, form, side] = {"model": model, "form": form, "side": side, **json.loads(done.stdout)}
            print(found[model, form, side], flush=True)
    points = ",\n".join("  " + json.dumps(found[key]) for key in sorted(found))
    head = json.dumps({"device": device_name("cpu", 1)}, ensure_ascii=False).removesuffix("}")
    path.write_text(f'{head},\n "points": [\n{points}\n ]}}\n', encoding="utf-8")
    if importlib.util.find_spec("matplotlib"):
        plot(json.loads(path.read_text(encoding="utf-8")), path.with_suffix(".png"))
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one(sys.argv[2], sys.argv[3], int(sys.argv[4]))))
    else:
        sys.exit(main(sys.argv[1:]))
