"""What every operator promises: readable errors, empty input, transforms, threads, and a process that goes on.

The cases stand in tests/cases. Values and edges are tested in tests/ops.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from op_case import Bad, Empty, OpCase, all_cases, map_tensors, tensors_of
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import fastcv.ops
from fastcv import _C
from fastcv.ops._call import COMPILED
from fastcv.ops._define import OPERATORS

CASES = list(all_cases())
# Of torch's operations alone, or of no tensors.
NO_OPERATORS = {"build_info", "drop_block2d", "drop_block3d", "stochastic_depth", "voxel_grid_size"}
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
each_bad = pytest.mark.parametrize(
    ("case", "bad"),
    [pytest.param(case, bad, id=f"{case.name}-{bad.text[:40]}") for case in CASES for bad in case.bad],
)
each_empty = pytest.mark.parametrize(
    ("case", "empty"),
    [
        pytest.param(case, empty, id=f"{case.name}-{'-'.join(empty.changed)}-{i}")
        for case in CASES
        for i, empty in enumerate(case.empty)
    ],
)


class Recorder(TorchDispatchMode):
    """Notes which operators of fastcv are called, and with what."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "fastcv":
            self.calls.append((func, args))
        return func(*args, **(kwargs or {}))


def assert_same(actual: Any, expected: Any) -> None:
    """The same tensors, NaN equal to NaN."""
    for a, b in zip(tensors_of(actual), tensors_of(expected), strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


# ---- completeness ----------------------------------------------------------------------------------------------------


def test_every_public_function_has_a_case() -> None:
    missing = sorted(set(fastcv.ops.__all__) - {case.name for case in CASES} - NO_OPERATORS)
    assert not missing, f"functions of fastcv.ops without an OpCase in tests/cases: {', '.join(missing)}"


def test_every_operator_is_reached_by_a_case() -> None:
    with Recorder() as recorder:
        for case in CASES:
            arguments = with_gradient(case, case.sample(0)) if case.order else case.sample(0)
            result = case.function(**arguments)
            if case.order:  # with a graph of the gradient, its operator may be replaced by differentiable ones
                differentiable_sum(result).backward(retain_graph=True)
                differentiable_sum(result).backward(create_graph=case.order > 1)
    reached = {func.name().removeprefix("fastcv::") for func, _ in recorder.calls}
    missed = sorted(set(OPERATORS) - reached)
    assert not missed, f"operators that no OpCase in tests/cases calls, nor its derivatives: {', '.join(missed)}"


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_the_compiled_function_has_the_arguments_of_the_schema(name: str) -> None:
    text = getattr(_C, name).__doc__ or ""
    signature = re.match(rf"{name}\((.*)\) -> ", text)
    assert signature, text
    names = OPERATORS[name].names
    message = f"the schema has ({', '.join(names)}), the binding {text}"
    assert len(re.findall(r"\barg\d+: ", signature[1])) == len(names), message


# ---- bad arguments ---------------------------------------------------------------------------------------------------


@contextmanager
def plainly() -> Iterator[Callable[[Tensor], Tensor]]:
    yield lambda tensor: tensor


@contextmanager
def wanting_a_gradient() -> Iterator[Callable[[Tensor], Tensor]]:
    yield lambda t: t.detach().requires_grad_() if t.is_floating_point() and t.layout is torch.strided else t


@contextmanager
def dispatched() -> Iterator[Callable[[Tensor], Tensor]]:
    with Recorder():
        yield lambda tensor: tensor


@contextmanager
def faked() -> Iterator[Callable[[Tensor], Tensor]]:
    log = logging.getLogger("torch._subclasses.fake_tensor")
    level = log.level
    log.setLevel(logging.CRITICAL)  # torch logs what is raised, behind which a failing test cannot be read
    try:
        with FakeTensorMode() as mode:
            yield mode.from_tensor
    finally:
        log.setLevel(level)


@pytest.mark.parametrize("way", [plainly, wanting_a_gradient, dispatched, faked])
@each_bad
def test_bad_arguments(case: OpCase, bad: Bad, way: Any) -> None:
    """The same type and the same words on every way to the kernel."""
    if way is faked and not bad.in_traces:
        pytest.skip("a trace sees no values")
    with way() as change:
        arguments = map_tensors({**case.sample(0), **bad.changed}, change)
        with pytest.raises(bad.error) as caught:
            case.function(**arguments)
    assert type(caught.value) is bad.error
    assert str(caught.value) == bad.text


UNKNOWN = torch.tensor(1, device="meta")
NUMBERS: dict[type, Any] = {
    int: [2.5, "3", None, 2**70, 1j, UNKNOWN],
    float: ["0.5", None, 1j, [0.5], UNKNOWN],
    bool: ["yes", None, 3, UNKNOWN],
}


@each_case
def test_scalars_that_are_no_numbers(case: OpCase) -> None:
    """The error names the argument, for every scalar and every wrong kind."""
    sample = case.sample(0)
    parameters = inspect.signature(case.function).parameters
    for name, value in sample.items():
        for wrong in NUMBERS.get(type(value), ()):
            if wrong is None and parameters[name].default is None:
                continue  # an option
            with pytest.raises((TypeError, ValueError), match=rf"^{name}\b.* must .*") as caught:
                case.function(**{**sample, name: wrong})
            assert "incompatible function arguments" not in str(caught.value)


@each_case
def test_scalars_of_numpy(case: OpCase) -> None:
    import numpy as np

    sample = case.sample(0)
    kinds = {int: np.int64, float: np.float64, bool: np.bool_}
    changed = {name: kinds[type(value)](value) for name, value in sample.items() if type(value) in kinds}
    if changed:
        assert_same(case.function(**{**sample, **changed}), case.function(**sample))


# ---- empty input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["cpu-default", "emulated"], indirect=True)
@each_empty
def test_empty(backend: Any, case: OpCase, empty: Empty) -> None:
    arguments = {**case.sample(0), **empty.changed}
    result = case.function(**(with_gradient(case, arguments) if case.order else arguments))
    shapes = [tuple(tensor.shape) for tensor in tensors_of(result)]
    assert shapes == ([empty.shapes] if isinstance(empty.shapes, tuple) else empty.shapes)
    if case.order:
        differentiable_sum(result).backward()


# ---- transforms ------------------------------------------------------------------------------------------------------


def with_gradient(case: OpCase, arguments: dict[str, Any]) -> dict[str, Any]:
    """Leaves that want a gradient in place of the differentiable arguments."""
    return {
        name: map_tensors(value, lambda t: t.detach().clone().requires_grad_())
        if name in case.differentiable
        else value
        for name, value in arguments.items()
    }


def differentiable_sum(result: Any) -> Tensor:
    """A number whose gradient reaches everything that has one."""
    return sum((t.square().sum() for t in tensors_of(result) if t.requires_grad), torch.zeros(()))


@each_case
def test_opcheck(case: OpCase) -> None:
    with Recorder() as recorder:
        arguments = with_gradient(case, case.sample(0)) if case.order else case.sample(0)
        result = case.function(**arguments)
        if case.order:
            differentiable_sum(result).backward()
    for func, args in recorder.calls:
        again = case.order > 1 or not func.name().endswith("_backward")  # some gradients refuse to be differentiated
        leaves = map_tensors(args, lambda t, again=again: t.detach().requires_grad_(again and t.requires_grad))
        torch.library.opcheck(func, leaves)


@each_case
def test_fake_tensors_have_the_layout_of_real_ones(case: OpCase) -> None:
    if case.size_depends_on_data:
        pytest.skip("the size is known only when it runs")
    expected = tensors_of(case.function(**case.sample(0)))
    with FakeTensorMode() as mode:
        actual = tensors_of(case.function(**map_tensors(case.sample(0), mode.from_tensor)))
    for fake, real in zip(actual, expected, strict=True):
        assert (fake.shape, fake.stride(), fake.dtype) == (real.shape, real.stride(), real.dtype)


@each_case
def test_compile(case: OpCase) -> None:
    torch._dynamo.reset()
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True, capture_scalar_outputs=True):
        compiled = torch.compile(case.function, fullgraph=True, backend="aot_eager")
        assert_same(compiled(**case.sample(1)), case.function(**case.sample(1)))
        if case.order:
            gradients = []
            for function in (compiled, case.function):
                arguments = with_gradient(case, case.sample(1))
                differentiable_sum(function(**arguments)).backward()
                gradients.append([leaf.grad for name in case.differentiable for leaf in tensors_of(arguments[name])])
            torch.testing.assert_close(*gradients)


@each_case
def test_trace(case: OpCase) -> None:
    """A trace is no constant: with other values it gives other results."""
    sample, other = case.sample(0), case.sample(1)
    names = [name for name, value in sample.items() if isinstance(value, Tensor)]
    if case.size_depends_on_data or not names:
        pytest.skip("nothing that torch.jit.trace can follow")

    def function(*tensors: Tensor) -> Any:
        return case.function(**{**sample, **dict(zip(names, tensors, strict=True))})

    traced = torch.jit.trace(function, tuple(sample[name] for name in names), check_trace=False)
    changed = tuple(other[name] for name in names)
    assert_same(traced(*changed), function(*changed))


@each_case
def test_gradients(case: OpCase) -> None:
    if not case.order or not case.exact_gradient:
        pytest.skip("it has no gradient, or one that is not that of its value")
    arguments = with_gradient(case, case.sample(2))
    leaves = [tensor for name in case.differentiable for tensor in tensors_of(arguments[name])]

    def function(*tensors: Tensor) -> Any:
        given = iter(tensors)
        changed = {name: map_tensors(arguments[name], lambda _: next(given)) for name in case.differentiable}
        result = case.function(**{**arguments, **changed})
        return tuple(t for t in tensors_of(result) if t.is_floating_point())

    assert torch.autograd.gradcheck(function, leaves, check_forward_ad=case.forward_mode)
    if case.order > 1:
        assert torch.autograd.gradgradcheck(function, leaves)


# ---- the same bits, and a process that goes on -----------------------------------------------------------------------


@each_case
def test_same_bits_for_every_run_and_number_of_threads(case: OpCase) -> None:
    def run() -> list[Tensor]:
        arguments = (case.large or (lambda: case.sample(0)))()
        arguments = with_gradient(case, arguments) if case.order else arguments
        result = case.function(**arguments)
        if case.order:
            differentiable_sum(result).backward()
        gradients = [leaf.grad for name in case.differentiable for leaf in tensors_of(arguments[name])]
        return tensors_of(result) + [gradient for gradient in gradients if gradient is not None]

    before = torch.get_num_threads()
    try:
        expected = run()
        for threads in (1, 2, 3, 4):
            torch.set_num_threads(threads)
            for actual, tensor in zip(run(), expected, strict=True):
                assert torch.equal(actual.nan_to_num(nan=123.0), tensor.nan_to_num(nan=123.0)), f"{threads} threads"
    finally:
        torch.set_num_threads(before)


HOSTILE = """
    import resource, sys
    resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, 8 << 30))  # a result of 16 GiB is refused at once
    sys.path.insert(0, {tests!r})
    import torch
    from op_case import all_cases, map_tensors, tensors_of
    from fastcv import _C
    from fastcv.ops._call import COMPILED

    class Spy:
        def __getattr__(self, name):
            function = getattr(_C, name)
            def call(*arguments):
                calls[name] = arguments
                return function(*arguments)
            return function if name == "Description" else call

    calls = {{}}
    COMPILED["_C"] = Spy()
    for case in all_cases():
        leaf = lambda tensor: tensor.detach().clone().requires_grad_()
        result = case.function(**{{
            name: map_tensors(value, leaf) if name in case.differentiable else value
            for name, value in case.sample(0).items()
        }})
        if case.order:
            sum(t.square().sum() for t in tensors_of(result) if t.requires_grad).backward()

    nan, inf = float("nan"), float("inf")
    def others(value):
        if isinstance(value, torch.Tensor):
            dtypes = (torch.float16, torch.float64, torch.int32, torch.int64, torch.bool)
            yield from (value[None], value.new_zeros(()), value.new_zeros((0,)), value.new_zeros((0,) * value.dim()))
            yield from (value.to(dtype) for dtype in dtypes)
            yield from (value.to("meta"), None, 3, [value])
            if value.dim() > 1:
                yield from (value.transpose(0, -1), value[:, :0], value[:0], value[:1].expand(value.shape))
            if value.is_floating_point():
                yield from (torch.full_like(value, x) for x in (nan, inf, -inf, 1e38, -1e38, 3e9, -1.0))
            elif value.dtype is not torch.bool and value.dtype is not torch.uint8:
                info = torch.iinfo(value.dtype)
                yield from (torch.full_like(value, x) for x in (-1, -2, info.max, info.min, 12345))
        elif isinstance(value, bool):
            yield from (not value, None)
        elif isinstance(value, int):
            yield from (-1, 0, 1, 7, 2**31 - 1, 2**31, 2**62, -(2**62), None, "x")
        elif isinstance(value, float):
            yield from (nan, inf, -inf, 0.0, -1.0, 1e300, None)
        elif isinstance(value, (list, tuple)):
            yield from ([], list(value) * 2, list(value)[:-1], list(value) * 40, None)
            for i, element in enumerate(value):
                for other in others(element):
                    yield [*value[:i], other, *value[i + 1:]]
        elif value is None:
            yield from (torch.zeros(3), 3)

    refused = ran = 0
    for name, arguments in calls.items():
        getattr(_C, name)(*arguments)  # as it is, it runs
        for position, value in enumerate(arguments):
            for other in others(value):
                changed = [*arguments[:position], other, *arguments[position + 1:]]
                print(name, position, file=sys.stderr)
                try:
                    getattr(_C, name)(*changed)
                    ran += 1
                except (TypeError, ValueError, MemoryError, RuntimeError, OverflowError):
                    refused += 1
    print(len(calls), refused, ran)
"""


def test_hostile_calls_of_compiled_functions_do_not_end_the_process(in_new_process: Callable[[str], str]) -> None:
    """Each argument of each compiled function replaced by wrong ones, where a crash would show as a signal."""
    from pathlib import Path

    functions, refused, ran = map(int, in_new_process(HOSTILE.format(tests=str(Path(__file__).parent))).split())
    assert functions >= len(OPERATORS) - 2  # of some only a variant without argmax is called
    assert refused > 20 * functions
    assert ran > functions
    assert COMPILED["_C"] is _C
