"""What layers call for inference: sparse_conv with two inputs, an addition and an activation, on every backend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sparse_problems import random_map, random_values
from torch import Tensor

from fastcv import reference
from fastcv.ops.sparse_conv import infer, pack

HAS_BF16_PAIRS = True
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
ACTIVATIONS = {
    None: lambda x: x,
    "relu": F.relu,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "silu": F.silu,
}


def check(
    backend: Any,
    channels: tuple[int, int],
    activation: str | None = "relu",
    dtype: torch.dtype = torch.float64,
    groups: int = 1,
    sizes: tuple[int, int] = (50, 45),
    parts: int = 1,
    has_residual: bool = True,
    has_bias: bool = True,
) -> None:
    """Against the reference in float64; with the weight packed and without, the same bits."""
    neighbours, reverse = random_map(6, *sizes)
    inputs = [random_values(sizes[0], channels[0], seed=i, dtype=dtype) for i in range(parts)]
    weight = random_values(channels[1], 1, 2, 3, parts * channels[0] // groups, seed=7, dtype=dtype)
    bias = random_values(channels[1], seed=8, dtype=dtype) if has_bias else None
    residual = random_values(sizes[1], channels[1], seed=9, dtype=dtype) if has_residual else None
    exact = [None if t is None else t.double() for t in (torch.cat(inputs, 1), weight, bias, residual)]
    expected = reference.sparse_conv(exact[0], exact[1], exact[2], neighbours, reverse, groups)  # type: ignore[arg-type]
    expected = ACTIVATIONS[activation](expected if exact[3] is None else expected + exact[3])

    def moved(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(backend.device)

    results = []
    for packed in (None, pack(moved(weight), groups, parts == 2)):  # type: ignore[arg-type]
        beside = inputs[1] if parts == 2 else None
        tensors = [moved(t) for t in (inputs[0], beside, weight, bias, neighbours)]
        output = infer(*tensors, groups, None, moved(residual), activation, 0.2, packed)  # type: ignore[arg-type]
        assert output.dtype is dtype
        results.append(output.cpu())
    assert torch.equal(*results)
    scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
    tolerance = TOLERANCE[dtype] * scale
    torch.testing.assert_close(results[0].double(), expected, rtol=TOLERANCE[dtype], atol=tolerance)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_activations(backend: Any, activation: str | None, dtype: torch.dtype) -> None:
    for channels in ((8, 16), (5, 7), (20, 33)):
        check(backend, channels, activation, dtype)
        check(backend, channels, activation, dtype, has_residual=False, has_bias=False)


@pytest.mark.parametrize("out_channels", [1, 16, 33, 64, 70, 130])
@pytest.mark.parametrize("in_channels", [1, 8, 17, 64])
def test_channel_counts(backend: Any, in_channels: int, out_channels: int) -> None:
    check(backend, (in_channels, out_channels))


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_two_inputs(backend: Any, dtype: torch.dtype) -> None:
    for channels in ((1, 3), (7, 16), (16, 40), (33, 65)):
        check(backend, channels, dtype=dtype, parts=2)


def test_groups(backend: Any) -> None:
    for in_channels, out_channels, groups in ((4, 6, 2), (8, 40, 4), (5, 5, 5)):
        check(backend, (in_channels, out_channels), groups=groups)


@pytest.mark.parametrize("outputs", [1, 16, 191, 192, 193, 400])
def test_edges_of_blocks(backend: Any, outputs: int) -> None:
    check(backend, (5, 7), sizes=(120, outputs))
    check(backend, (20, 50), sizes=(outputs, 70), parts=2)


def test_no_rows_and_no_pairs(backend: Any) -> None:
    check(backend, (4, 6), sizes=(0, 0))
    check(backend, (4, 6), sizes=(10, 0))
    check(backend, (4, 6), sizes=(0, 10))


def test_any_strides(backend: Any) -> None:
    neighbours, _ = random_map(6, 50, 45)
    features, residual = random_values(8, 50).to(backend.device).t(), random_values(12, 45).to(backend.device).t()
    weight = random_values(8, 1, 2, 3, 12).to(backend.device).permute(4, 1, 2, 3, 0)
    map = neighbours.to(backend.device)
    one = infer(features, None, weight, None, map, 1, None, residual, "relu", 0, None)
    dense = [t.contiguous() for t in (features, weight, residual)]
    for packed in (None, pack(weight, 1, False)):
        other = infer(dense[0], None, dense[1], None, map, 1, None, dense[2], "relu", 0, packed)
        assert torch.equal(one, other)


def test_nan_comes_through(backend: Any) -> None:
    neighbours = torch.tensor([[0, 1, -1]], dtype=torch.int32, device=backend.device)
    features = torch.tensor([[torch.nan], [-1.0]], device=backend.device)
    weight = torch.ones(3, 1, 1, 1, 1, device=backend.device)
    output = infer(features, None, weight, None, neighbours, 1, None, None, "relu", 0, None)
    assert output[0].isnan().all()
    assert not output[1:].any()


def test_bits_do_not_depend_on_threads() -> None:
    neighbours, _ = random_map(6, 900, 1000)
    tensors = (random_values(900, 20).float(), None, random_values(40, 1, 2, 3, 20).float(), random_values(40).float())
    results = []
    before = torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(infer(*tensors, neighbours, 1, None, None, "silu", 0, None))
    torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_bad_arguments(backend: Any) -> None:
    neighbours = random_map(6, 5, 4)[0].to(backend.device)
    good: dict[str, Any] = {
        "features": torch.zeros(5, 4, device=backend.device),
        "beside": None,
        "weight": torch.zeros(6, 1, 2, 3, 4, device=backend.device),
        "bias": torch.zeros(6, device=backend.device),
        "neighbours": neighbours,
        "groups": 1,
        "order": None,
        "residual": torch.zeros(4, 6, device=backend.device),
        "activation": "relu",
        "negative_slope": 0.0,
        "packed": None,
    }
    zeros = torch.zeros
    wrong: list[tuple[str, Any, type[Exception], str]] = [
        ("features", zeros(5), ValueError, r"features must have shape \(N, C_in\), got \(5,\)"),
        ("beside", zeros(5, 3), ValueError, r"beside must have shape \(N, C_in\) = \(5, 4\), got \(5, 3\)"),
        ("weight", zeros(6, 1, 2, 3, 5), ValueError, "weight must have shape .* got "),
        ("weight", zeros(6, 1, 2, 3, 4).double(), TypeError, r"weight must have the dtype of features \(float32\)"),
        ("bias", zeros(5), ValueError, r"bias must have shape \(C_out,\) = \(6\), got \(5,\)"),
        ("residual", zeros(4, 5), ValueError, r"residual must have shape \(M, C_out\) = \(4, 6\), got \(4, 5\)"),
        ("residual", zeros(4, 6).double(), TypeError, "residual must have the dtype of features"),
        ("activation", "gelu", ValueError, "activation must be None, 'relu', 'leaky_relu' or 'silu', got 'gelu'"),
        ("neighbours", neighbours.long(), TypeError, "neighbours must be int32, got int64"),
        ("neighbours", neighbours[:0], ValueError, "neighbours must have a row for each kernel element"),
        ("groups", 4, ValueError, "weight must have shape|groups must divide"),
    ]
    for name, value, kind, text in wrong:
        value = value.to(backend.device) if isinstance(value, Tensor) else value
        with pytest.raises(kind, match=text):
            infer(**{**good, name: value})
    with pytest.raises(ValueError, match="groups must be 1 where there is beside, got 2"):
        infer(**{**good, "beside": good["features"], "groups": 2})


def test_a_wrong_packed_weight() -> None:
    neighbours, _ = random_map(6, 5, 4)
    weight = torch.zeros(6, 1, 2, 3, 4)
    with pytest.raises(ValueError, match=r"packed must have shape what sparse_conv_pack makes of weight = \(\d+\)"):
        infer(torch.zeros(5, 4), None, weight, None, neighbours, 1, None, None, None, 0, torch.zeros(3).byte())
    with pytest.raises(ValueError, match="groups must divide the output channels of weight"):
        pack(weight, 4, False)
    with pytest.raises(ValueError, match="neighbours must be rows of the features, below 5"):
        infer(torch.zeros(5, 4), None, weight, None, neighbours + 9, 1, None, None, None, 0, None)
