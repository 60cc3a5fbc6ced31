"""Random calls of every public function: `python tests/fuzz.py --calls 100000 --seed 0`.

Tame calls change strides alone; they are compared with plain ones and with fastcv.reference. Wild calls change
anything; they may be refused, readably. A call is made again by its seed: `--only NAME --seed SEED --calls 1`.
"""

from __future__ import annotations

import argparse
import inspect
import random
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from op_case import OpCase, all_cases, map_tensors, tensors_of
from torch import Tensor

from fastcv import reference

REFUSALS = (TypeError, ValueError, MemoryError, NotImplementedError)
UNREADABLE = (
    "incompatible function arguments",
    "not supported between",
    "not iterable",
    "has no len",
    "object is not",
    "has no attribute",
    "Cannot access",
    "unpack",
    "Overflow",
    "ScalarType",
    "INTERNAL ASSERT",
    "Exception raised from",
    "index out of range",
)
NAN, INF = float("nan"), float("inf")
INTS = (-1, 0, 1, 2, 3, 5, 17, 65537, 2**31, 2**40, 2**63, -(2**63), True, 2.5, "3", None, np.int64(2), torch.tensor(2))
FLOATS = (NAN, INF, -INF, 0.0, -1.0, 1e-300, 1e300, 1, True, None, "a", 2**70, np.float32(0.5), torch.tensor(0.5), 1j)
BOOLS = (True, False, 0, 1, 2, None, "x", np.True_)
DTYPES = (
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint8, torch.bool, torch.complex64),
)
MEMORY = 2048  # MiB that all calls together may add: what asks for more gets a MemoryError soon


def strided(tensor: Tensor, choose: random.Random) -> Tensor:
    """The same values in other places."""
    if tensor.dim() == 0:
        return tensor
    way = choose.randrange(4)
    if way == 0:
        return tensor.transpose(0, -1).contiguous().transpose(0, -1)
    if way == 1:
        return torch.stack([tensor, tensor], -1)[..., 0]
    if way == 2 and tensor.dim() == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    return torch.cat([tensor, tensor])[: tensor.shape[0]]


def wild_tensor(tensor: Tensor, choose: random.Random) -> Any:
    """Something in the place of a tensor."""
    axis = choose.randrange(tensor.dim()) if tensor.dim() else 0
    ways: list[Callable[[], Any]] = [
        lambda: tensor.to(choose.choice(DTYPES)),
        lambda: tensor.narrow(axis, 0, choose.randrange(tensor.shape[axis] + 1)) if tensor.dim() else tensor,
        lambda: tensor.unsqueeze(axis),
        lambda: tensor.select(axis, 0) if tensor.dim() and tensor.shape[axis] else tensor,
        lambda: tensor.transpose(0, -1) if tensor.dim() > 1 else tensor,
        lambda: tensor[None].expand(3, *tensor.shape),
        lambda: torch.cat([tensor, tensor], axis) if tensor.dim() else tensor,
        lambda: torch.where(torch.rand(tensor.shape) < 0.3, choose.choice([NAN, INF, -INF, 1e30, -1.0, 3e9]), tensor),
        lambda: tensor * choose.choice([-1, 1000, 10**6]) if tensor.dtype is not torch.bool else tensor,
        lambda: strided(tensor, choose),
        lambda: tensor.to("meta"),
        lambda: tensor.to_sparse() if not tensor.is_sparse else tensor,
        lambda: tensor.clone().requires_grad_() if tensor.is_floating_point() else tensor,
        lambda: tensor.new_zeros((0,) * tensor.dim()),
        lambda: tensor.new_zeros(()),
        lambda: choose.choice([None, 3, "x", [tensor], tensor.tolist()]),
    ]
    return choose.choice(ways)()


def wild(value: Any, choose: random.Random) -> Any:
    """Something in the place of an argument."""
    if isinstance(value, Tensor):
        return wild_tensor(value, choose)
    if isinstance(value, bool):
        return choose.choice(BOOLS)
    if isinstance(value, int):
        return choose.choice(INTS)
    if isinstance(value, float):
        return choose.choice(FLOATS)
    if isinstance(value, list | tuple) and value:
        elements = list(value)
        position = choose.randrange(len(elements))
        way = choose.randrange(4)
        if way == 0:
            return type(value)(elements[:position])
        if way == 1:
            return type(value)(elements * 2)
        if way == 2:
            return choose.choice([None, 3, 0.5, "ab", elements[0]])
        elements[position] = wild(elements[position], choose)
        return type(value)(elements)
    return choose.choice([None, 3, "other", torch.zeros(3), 0.5])


def tame(arguments: dict[str, Any], choose: random.Random) -> dict[str, Any]:
    """The same arguments in other strides."""
    return map_tensors(arguments, lambda t: strided(t, choose) if choose.random() < 0.5 else t)  # type: ignore[no-any-return]


COMPARED: set[str] = set()
"""The functions of which a result was held against the reference."""


def compare(case: OpCase, arguments: dict[str, Any], plain: dict[str, Any]) -> None:
    """Hold a result against that of the same values in plain strides, and against the reference where it takes them."""
    actual = tensors_of(case.function(**arguments))
    assert_near(actual, tensors_of(case.function(**plain)))
    slow = case.reference or getattr(reference, case.name, None)
    if slow is None or not set(arguments) <= set(inspect.signature(slow).parameters):
        return
    try:
        expected = tensors_of(slow(**arguments))
    except (TypeError, ValueError, RuntimeError):  # it takes fewer forms of the arguments than the operator
        return
    COMPARED.add(case.name)
    assert_near(actual, expected)


def assert_near(actual: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(actual, expected, strict=False):
        torch.testing.assert_close(a, b.to(a.dtype), rtol=1e-9, atol=1e-9, equal_nan=True)


def call(case: OpCase, seed: int) -> str:
    """One random call; returns what is wrong, or nothing."""
    choose = random.Random(f"{case.name} {seed}")
    torch.manual_seed(seed)
    arguments = case.sample(seed % 3)
    if choose.random() < 0.2:
        try:
            compare(case, tame(arguments, choose), arguments)
        except Exception as error:
            return f"tame: {type(error).__name__}: {error}"
        return ""
    for _ in range(choose.randint(1, 2)):
        name = choose.choice(list(arguments))
        try:
            arguments[name] = wild(arguments[name], choose)
        except (RuntimeError, TypeError, ValueError):  # torch cannot change it so
            continue
    try:
        result = case.function(**arguments)
        wanted = [tensor for tensor in tensors_of(result) if tensor.requires_grad]
        if case.order and wanted and wanted[0].device.type != "meta":
            torch.autograd.backward([tensor.sum() for tensor in wanted])
    except REFUSALS as error:
        text = str(error)
        if not text or any(part in text for part in UNREADABLE):
            return f"unreadable: {type(error).__name__}: {text[:300]}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=5000, help="how many calls, all functions together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="name of one function")
    parser.add_argument("--log", type=Path, help="file that names the call in progress, for the case of a crash")
    parser.add_argument("--memory", type=int, default=MEMORY, help="MiB that may be added; 0 sets no limit")
    options = parser.parse_args()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    if options.memory:
        resource.setrlimit(resource.RLIMIT_AS, (used + (options.memory << 20), resource.RLIM_INFINITY))
    torch.set_num_threads(2)
    cases = [case for case in all_cases() if options.only in ("", case.name)]
    faults: dict[str, int] = {}
    for i in range(options.calls):
        case, seed = cases[i % len(cases)], options.seed + i // len(cases)
        if options.log:
            options.log.write_text(f"{case.name} --seed {seed}\n")
        if fault := call(case, seed):
            if (line := f"{case.name}: {fault}") not in faults:
                print(f"--only {case.name} --seed {seed} --calls 1: {fault}", flush=True)
            faults[line] = faults.get(line, 0) + 1
    compared = f"{len(COMPARED)} of {len(cases)} functions compared with the reference"
    print(f"{options.calls} calls, {compared}, {sum(faults.values())} faults")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
