"""Streams, graphs and devices, for every operator: needs a GPU, and two for the last test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from once_each import placed, results
from op_case import Arguments, OpCase, all_cases, map_tensors, tensors_of
from torch import Tensor

if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)
pytestmark = pytest.mark.cuda

# Of torch's operations alone, or of random numbers.
OTHERS = ("build_info", "drop_block2d", "drop_block3d", "stochastic_depth", "voxel_grid_size")
CASES = [case for case in all_cases() if case.name not in OTHERS]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
SLEEP = 40_000_000  # cycles: some 20 ms


def late(arguments: Arguments) -> Arguments:
    """Copies of the arguments that the current stream fills in after a sleep. Until then they are zeros."""
    copies = map_tensors(arguments, torch.zeros_like)
    torch.cuda.synchronize()
    torch.cuda._sleep(SLEEP)
    for copy, original in zip(tensors_of(copies), tensors_of(arguments), strict=True):
        copy.copy_(original)
    return copies


def assert_same(actual: list[Tensor], expected: list[Tensor], name: str) -> None:
    assert len(actual) == len(expected), name
    for a, b in zip(actual, expected, strict=True):
        assert a.shape == b.shape, name
        assert torch.equal(a.nan_to_num(1.5), b.nan_to_num(1.5)), name


@each_case
def test_work_waits_for_what_its_stream_has_yet_to_do(case: OpCase) -> None:
    """Forward and backward, on a stream that the device's default stream does not wait for."""
    arguments = placed(case.sample(0), "cuda", torch.float32)
    expected = list(results(case, placed(arguments, "cuda", torch.float32)))
    with torch.cuda.stream(torch.cuda.Stream()):
        actual = list(results(case, late(arguments)))
    torch.cuda.synchronize()
    assert_same(actual, expected, case.name)


@each_case
def test_results_may_be_read_on_their_stream_at_once(case: OpCase) -> None:
    """No kernel runs beside the stream: what follows on it sees the whole result."""
    arguments = placed(case.sample(0), "cuda", torch.float32)
    expected = [value.clone() for value in tensors_of(case.function(**arguments))]
    with torch.cuda.stream(torch.cuda.Stream()):
        actual = [value.clone() for value in tensors_of(case.function(**late(arguments)))]
    torch.cuda.synchronize()
    assert_same(actual, expected, case.name)


def test_graphs_are_captured_without_a_call_before(in_new_process: Callable[[str], str]) -> None:
    """In a process of its own, where each operator's first call is the one that is captured."""
    from pathlib import Path

    script = f"""
    import sys, torch
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    from once_each import placed
    from op_case import all_cases, tensors_of

    torch.zeros(1, device="cuda")
    wrong = []
    for case in all_cases():
        if case.size_depends_on_data or case.name in {OTHERS!r}:
            continue
        samples = [case.sample(0), *([case.large()] if case.large is not None else [])]
        for arguments in samples:
            arguments = placed(arguments, "cuda", torch.float32)
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph):
                    captured = tensors_of(case.function(**arguments))
                for _ in range(2):
                    for tensor in captured:
                        tensor.zero_()
                    graph.replay()
                torch.cuda.synchronize()
                expected = tensors_of(case.function(**arguments))
                if not all(torch.equal(a.nan_to_num(1.5), b.nan_to_num(1.5)) for a, b in zip(captured, expected)):
                    wrong.append(case.name + ": another result")
            except RuntimeError as error:
                wrong.append(case.name + ": " + str(error).splitlines()[0])
    print(*wrong, sep="\\n")
    """
    assert in_new_process(script).strip() == ""


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@each_case
def test_a_device_that_is_not_the_current_one(case: OpCase) -> None:
    expected = list(results(case, placed(case.sample(0), "cuda:0", torch.float32)))
    actual = list(results(case, placed(case.sample(0), "cuda:1", torch.float32)))
    assert torch.cuda.current_device() == 0
    assert {value.device.index for value in actual} <= {1}
    assert_same([value.to("cuda:0") for value in actual], expected, case.name)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@each_case
def test_tensors_of_two_devices_are_refused(case: OpCase) -> None:
    arguments = placed(case.sample(0), "cuda:0", torch.float32)
    names = [name for name, value in arguments.items() if isinstance(value, Tensor)]
    if len(names) < 2:
        pytest.skip("takes one tensor")
    changed: dict[str, Any] = {**arguments, names[-1]: arguments[names[-1]].to("cuda:1")}
    with pytest.raises((ValueError, RuntimeError), match="device"):
        case.function(**changed)
