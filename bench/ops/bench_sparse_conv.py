"""Sparse convolution: with its map (G1, G2), over a map that is there, and as a training step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.harness import run_case
from bench.ops.bench_sparse_kernel_map import GEOMETRY, SHAPE, surface_sites
from bench.workloads import Problem, Target, Variant, Workload
from fastcv.ops import sparse_conv, sparse_kernel_map

CHANNELS = ((4, 16), (16, 32), (64, 64))


def problem(variant: Variant, in_channels: int, out_channels: int, kind: str, with_map: bool) -> Problem:
    """Features and weight, and the sites or the map that is made of them."""
    generator = torch.Generator().manual_seed(0)
    indices = surface_sites(variant).to(variant.device)
    features = variant.place(torch.randn(len(indices), in_channels, generator=generator))
    weight = torch.randn(out_channels, 3, 3, 3, in_channels, generator=generator).to(features)
    _, neighbours, reverse = sparse_kernel_map(indices, SHAPE, 1, **GEOMETRY[kind])
    moved = features.nbytes + weight.nbytes + neighbours.shape[1] * out_channels * features.element_size()
    flops = 2 * int((neighbours >= 0).sum()) * in_channels * out_channels
    args = (indices, features, weight, kind) if with_map else (features, weight, neighbours, reverse)
    return Problem(args, bytes=moved + neighbours.nbytes, flops=flops)


def map_and_convolve(indices: Tensor, features: Tensor, weight: Tensor, kind: str) -> Tensor:
    wanted = torch.is_grad_enabled()  # spconv's maps without an indice_key are made for inference alone, too
    _, neighbours, reverse = sparse_kernel_map(indices, SHAPE, 1, **GEOMETRY[kind], with_reverse=wanted)
    return sparse_conv(features, weight, None, neighbours, reverse)


def load_fastcv() -> Callable[..., Any]:
    return map_and_convolve


def load_fastcv_over_map() -> Callable[..., Any]:
    return lambda features, weight, neighbours, reverse: sparse_conv(features, weight, None, neighbours, reverse)


def load_fastcv_step() -> Callable[..., Any]:
    def step(indices: Tensor, features: Tensor, weight: Tensor, kind: str) -> list[Tensor]:
        features, weight = features.detach().requires_grad_(), weight.detach().requires_grad_()
        output = map_and_convolve(indices, features, weight, kind)
        return [output.detach(), *torch.autograd.grad(output.sum(), (features, weight))]

    return step


def load_spconv() -> Callable[..., Any]:
    """spconv's layers. They build their map anew where no indice_key is given. Their CPU build has no backward."""
    import spconv.pytorch as spconv  # type: ignore[import-not-found,unused-ignore]

    layers: dict[Any, Any] = {}

    def call(indices: Tensor, features: Tensor, weight: Tensor, kind: str) -> Tensor:
        out_channels, *_, in_channels = weight.shape
        key = (kind, in_channels, out_channels, features.dtype, features.device)
        if key not in layers:
            options = {name: value for name, value in GEOMETRY[kind].items() if name not in ("subm", "kernel_size")}
            make = spconv.SubMConv3d if kind == "subm" else spconv.SparseConv3d
            layers[key] = make(in_channels, out_channels, 3, bias=False, **options).to(features)
            layers[key].weight.data.copy_(weight)
        result = layers[key](spconv.SparseConvTensor(features, indices, SHAPE, 1))
        return result.features  # type: ignore[no-any-return]

    return call


def load_spconv_over_map() -> Callable[..., Any]:
    """spconv's layer where the tensor already holds its map, under the layer's key. The kept map is of these sites."""
    import spconv.pytorch as spconv

    kept: dict[Any, Any] = {}

    def call(features: Tensor, weight: Tensor, neighbours: Tensor, reverse: Tensor) -> Tensor:
        out_channels, *_, in_channels = weight.shape
        key = (features.data_ptr(), in_channels, out_channels, features.dtype)
        if key not in kept:
            kept.clear()
            layer = spconv.SubMConv3d(in_channels, out_channels, 3, bias=False, indice_key="map").to(features)
            layer.weight.data.copy_(weight)
            kind = Variant(device=features.device.type)
            tensor = spconv.SparseConvTensor(features, surface_sites(kind).to(features.device), SHAPE, 1)
            kept[key] = layer, tensor, layer(tensor).indice_dict
        layer, tensor, maps = kept[key]
        tensor.indice_dict = maps
        return layer(tensor).features  # type: ignore[no-any-return]

    return call


def call(op: Any, *arguments: Any) -> Any:
    with torch.inference_mode():
        return op(*arguments)


def call_with_gradient(op: Any, *arguments: Any) -> Any:
    return op(*arguments)


def workload(number: str, kind: str, channels: tuple[int, int], ratio: float) -> Workload:
    return Workload(
        id=f"{number}-{channels[0]}-{channels[1]}",
        title=f"{'SubMConv3d' if kind == 'subm' else 'SparseConv3d'} 3³ with its map, {channels[0]} → {channels[1]}",
        problem=partial(problem, in_channels=channels[0], out_channels=channels[1], kind=kind, with_map=True),
        call=call,
        contenders={"fastcv": load_fastcv, "spconv": load_spconv},
        peer="spconv",
        targets=dict.fromkeys(("one thread", "all threads"), Target(ratio=ratio)),
        variants=(("float32", "contiguous"),),
        tolerance=1e-3 if kind == "subm" else None,  # spconv's output sites come in an order of its own
    )


RATIOS = {(4, 16): 4.0, (16, 32): 4.0, (64, 64): 2.0}
WORKLOADS = [
    workload(number, kind, channels, RATIOS[channels])
    for number, kind in (("G1", "subm"), ("G2", "strided"))
    for channels in CHANNELS
]
WORKLOADS += [
    Workload(
        id=f"G1-cached-{channels[0]}-{channels[1]}",
        title=f"SubMConv3d 3³ over a map that is there, {channels[0]} → {channels[1]}",
        problem=partial(problem, in_channels=channels[0], out_channels=channels[1], kind="subm", with_map=False),
        call=call,
        contenders={"fastcv": load_fastcv_over_map},
        peer="spconv",
        variants=(("float32", "contiguous"), ("bfloat16", "contiguous")),
    )
    for channels in CHANNELS
]
WORKLOADS += [
    Workload(
        id=f"G1-kept-{channels}",
        title=f"SubMConv3d 3³ over a map that is there, {channels} → {channels}",
        problem=partial(problem, in_channels=channels, out_channels=channels, kind="subm", with_map=False),
        call=call,
        contenders={"fastcv": load_fastcv_over_map, "spconv": load_spconv_over_map},
        peer="spconv",
        targets={"cuda": Target(ratio=1)},
        variants=(("float16", "contiguous"), ("bfloat16", "contiguous")),
        devices=("cuda",),
    )
    for channels in (16, 64, 128, 256)
]
WORKLOADS += [
    Workload(
        id=f"G1-step-{channels[0]}-{channels[1]}",
        title=f"SubMConv3d 3³, map, forward and backward, {channels[0]} → {channels[1]}",
        problem=partial(problem, in_channels=channels[0], out_channels=channels[1], kind="subm", with_map=True),
        call=call_with_gradient,
        contenders={"fastcv": load_fastcv_step},
        peer="spconv",
    )
    for channels in CHANNELS
]

test_sparse_conv = run_case
