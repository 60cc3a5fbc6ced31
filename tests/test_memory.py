"""Memory that runs out, or that nobody has: an exception wherever that happens, and a process that goes on."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path

import cases
import pytest

FAMILIES = sorted(info.name for info in pkgutil.iter_modules(cases.__path__))

# Every place of the first 32, then ever fewer: some operators allocate for every region of interest.
FAILING = """
    import importlib, re, sys
    sys.path.insert(0, {tests!r})
    import torch
    from op_case import map_tensors, tensors_of
    from fastcv import _C

    TEXT = re.compile(r"fastcv could not allocate \\d+ bytes of scratch memory")

    def run(case):
        arguments = case.large() if case.large else case.sample(0)
        for name in case.differentiable:
            arguments[name] = map_tensors(arguments[name], lambda t: t.detach().clone().requires_grad_())
        results = tensors_of(case.function(**arguments))
        wanted = [leaf for name in case.differentiable for leaf in tensors_of(arguments[name])]
        if not wanted:
            return results
        total = sum(t.square().sum() for t in results if t.requires_grad)
        first = torch.autograd.grad(total, wanted, create_graph=case.order > 1)
        if case.order < 2:
            return [*results, *first]
        return [*results, *first, *torch.autograd.grad(sum(t.square().sum() for t in first), wanted, allow_unused=True)]

    def same(actual, expected):
        return all(
            a is b is None or torch.equal(a.nan_to_num(nan=123.0), b.nan_to_num(nan=123.0))
            for a, b in zip(actual, expected, strict=True)
        )

    torch.set_num_threads(2)
    for case in importlib.import_module("cases.{family}").CASES:
        expected = run(case)
        place = failed = 0
        while True:
            _C.fail_allocation_after(place)
            try:
                run(case)
            except MemoryError as error:
                assert TEXT.fullmatch(str(error)), (case.name, place, str(error))
                assert _C.fail_allocation_after(-1) < 0, (case.name, place)
                failed += 1
            else:
                assert _C.fail_allocation_after(-1) >= 0, (case.name, place, "nobody heard of it")
                break
            assert same(run(case), expected), (case.name, place)
            place += 1 + max(0, place - 32) // 4
        print(case.name, failed)
"""


@pytest.mark.parametrize("family", FAMILIES)
def test_every_allocation_may_fail(family: str, in_new_process: Callable[[str], str]) -> None:
    """One allocation after the other fails, on whichever thread; what is computed next is right."""
    printed = in_new_process(FAILING.format(tests=str(Path(__file__).parent), family=family))
    assert printed.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the address space")
def test_no_memory_inside_a_parallel_body(in_new_process: Callable[[str], str]) -> None:
    printed = in_new_process("""
        import resource
        import torch
        from fastcv.ops import roi_align

        torch.set_num_threads(2)
        x = torch.rand(2, 64, 800, 800).requires_grad_()
        boxes = torch.tensor([[0.0, 10, 20, 60, 80], [1.0, 300, 300, 350, 350]])
        y = roi_align(x, boxes, 7, 1.0, 2).sum()
        torch.ones(300_000).sin().sum()  # whatever torch's threads need, they have now
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (330 << 20),) * 2)  # the gradient alone is 328 MB
        try:
            torch.autograd.grad(y, x)
        except MemoryError as error:
            print(error)
    """)
    assert printed.startswith("fastcv could not allocate ")


def test_sizes_that_wrap_around(in_new_process: Callable[[str], str]) -> None:
    """The memory for the order of the boxes would be 2^64 bytes and some."""
    printed = in_new_process("""
        import torch
        from fastcv.ops import roi_align

        maps = torch.zeros(1, 1, 1, 1).expand(2**30, 1, 2**31 - 1, 1)
        try:
            roi_align(maps, torch.tensor([[0.0, 0, 0, 1, 1]]), 1)
        except MemoryError as error:
            print(error)
    """)
    assert printed == "fastcv could not allocate 2^60 or more bytes of scratch memory\n"
