"""Memory of results that lives between calls: it is used again, never while somebody holds it, and bounded."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import fastcv
from fastcv import _C
from fastcv.models.detection import create
from fastcv.models.segmentation import UNet
from fastcv.nn import Conv2d
from fastcv.ops import conv2d
from fastcv.ops._arena import joined_channels

SIDE = 64  # a result of 16 x 64 x 64 floats is 256 kB


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    _C.release_arena()
    yield
    _C.release_arena()


def layer() -> Conv2d:
    torch.manual_seed(0)
    return Conv2d(16, 16, 3, padding=1, channels_last=True).optimize()


def test_a_result_that_is_gone_gives_its_memory_to_the_next() -> None:
    conv, x = layer(), torch.randn(1, 16, SIDE, SIDE)
    first = conv(x)
    where, values = first.data_ptr(), first.clone()
    used, free = _C.arena_use()
    assert used >= first.nbytes
    assert free == 0
    second = conv(x)  # while the first is held
    assert second.data_ptr() != where
    assert torch.equal(first, values)
    view = first[:, :3]
    del first
    third = conv(x)
    assert third.data_ptr() not in (where, second.data_ptr()), "a view holds the first"
    assert torch.equal(view, values[:, :3])
    del view
    assert conv(x).data_ptr() == where
    del second, third
    assert _C.arena_use()[0] == used - 2**18
    assert _C.arena_use()[1] == 3 * 2**18


def test_only_who_asked_for_it_gets_it() -> None:
    x, weight = torch.randn(1, 16, SIDE, SIDE), torch.randn(16, 16, 3, 3)
    used = _C.arena_use()
    kept = [conv2d(x, weight), Conv2d(16, 16, 3)(x.clone())]
    small = layer()(x[..., :8, :8])
    assert _C.arena_use() == used
    del kept, small


def test_free_memory_adds_nothing_to_the_peak() -> None:
    """Other sizes push out what is free; what is kept is never more than what was in use at once."""
    conv = layer()
    most = 0
    for side in (64, 96, 32, 128, 80, 200, 64):
        held = conv(torch.randn(1, 16, side, side))
        used, free = _C.arena_use()
        most = max(most, used)
        assert used + free <= most
        assert used >= held.nbytes
        del held
    _C.release_arena()
    assert _C.arena_use()[1] == 0


def resident() -> int:
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def test_a_gap_that_is_too_small_goes_back_to_the_system() -> None:
    conv = layer()
    first, second = (conv(torch.randn(1, 16, 512, 512)) for _ in range(2))  # 16 MB each
    size = first.nbytes
    del first
    assert _C.arena_use() == (size, size)
    x = torch.randn(1, 16, 512, 1024)
    large = conv(x)  # at a new peak, with which nothing is kept
    assert _C.arena_use() == (3 * size, 0)
    del second, large
    assert _C.arena_use() == (0, 3 * size)
    assert torch.equal(conv(x), conv(x)), "values are right in memory that went and came"
    kept, before = _C.arena_use()[1], resident()
    assert kept == 4 * size
    _C.release_arena()
    assert before - resident() > 0.9 * kept


def test_results_are_ordinary_tensors() -> None:
    conv, x = layer(), torch.randn(2, 16, SIDE, SIDE)
    with torch.inference_mode():
        assert conv(x).is_inference()
    y = conv(x)
    expected = torch.nn.functional.conv2d(x, conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
    assert type(y) is torch.Tensor
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert y.dtype is torch.float32
    assert not y.requires_grad
    y.requires_grad_().sum().backward()
    assert torch.equal(y.grad, torch.ones_like(y))
    half = conv.to(torch.bfloat16)(x.bfloat16())
    assert half.dtype is torch.bfloat16
    assert half.shape == y.shape


def test_from_many_threads() -> None:
    """Results are made on some threads and go on another."""
    conv, x = layer(), torch.randn(1, 16, SIDE, SIDE)
    expected = conv(x).clone()
    made: list[Any] = []

    def work() -> None:
        for _ in range(50):
            y = conv(x)
            assert torch.equal(y, expected)
            made.append(y)
            if len(made) > 8:
                made.pop(0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(y, expected) for y in made)
    made.clear()


def test_a_detector_leaves_nothing_in_use() -> None:
    torch.manual_seed(0)
    model = create("maskrcnn_tiny_fpn", num_classes=3, min_size=128).eval().optimize()
    before = _C.arena_use()[0]
    with torch.no_grad():
        found = model([torch.rand(3, 128, 128)])
        kept = [{name: value.clone() for name, value in image.items()} for image in found]
        model([torch.rand(3, 128, 128)])
    for old, new in zip(kept, found, strict=True):
        for name, value in old.items():
            assert torch.equal(value, new[name]), "the second call wrote into results of the first"
    assert _C.arena_use()[0] - before >= sum(image["masks"].nbytes for image in found) > 0
    del found, new
    assert _C.arena_use()[0] == before
    assert _C.set_arena(False) is False


def test_neighbours_are_joined() -> None:
    """Memory of many small results serves a large one."""
    conv = layer()
    small = [conv(torch.randn(1, 16, 2 * SIDE, 2 * SIDE)) for _ in range(8)]  # 1 MB each
    first = min(y.data_ptr() for y in small)
    del small
    assert _C.arena_use()[1] == 2**23
    x = torch.ones(2, 16, 4 * SIDE, 2 * SIDE)
    large = conv(x)  # 4 MB
    assert first <= large.data_ptr() < first + 2**21
    assert _C.arena_use() == (2**22, 2**22)
    expected = torch.nn.functional.conv2d(x, conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(large, expected, rtol=1e-4, atol=1e-4)


def test_where_addresses_are_limited() -> None:
    """Most of them are left to others, and without any the results still come."""
    code = """if 1:
        import resource, sys, torch
        from fastcv import _C
        from fastcv.nn import Conv2d
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (int(sys.argv[1]) << 20),) * 2)
        conv, x = Conv2d(16, 16, 3, padding=1).optimize(), torch.randn(1, 16, 256, 256)
        assert torch.equal(conv(x), conv(x))
        print(torch.empty(1 << 28).numel(), _C.arena_use()[0])
    """
    for megabytes in (3 << 10, 32 << 10):
        arguments = [sys.executable, "-c", code, str(megabytes)]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=120)
        assert done.stdout.split() == [str(1 << 28), "0"], done.stderr


def test_a_second_detection_costs_no_page_faults() -> None:
    torch.manual_seed(0)
    model = create("maskrcnn_tiny_fpn", num_classes=3, min_size=512, box_score_thresh=0.0).eval().optimize()
    image = torch.rand(3, 512, 512)
    faults = []
    with torch.no_grad():
        for _ in range(5):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            found = model([image])
            faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
            size = sum(value.nbytes for value in found[0].values())
            del found
    assert size > 50 << 20
    assert min(faults[2:]) < 2000, faults  # of 4 kB: 8 MB, where masks alone have 100


def test_a_unet_runs_in_the_arena() -> None:
    """Its concatenations and poolings, too: nothing is allocated from the second call on; the same values."""
    torch.manual_seed(0)
    network = UNet(3, 2, base_channels=32, depth=2).eval()
    optimized, x = fastcv.optimize(network), torch.randn(1, 3, 256, 256)
    with torch.no_grad():
        expected, faults = network(x), []
        for _ in range(4):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            actual = optimized(x)
            faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    assert min(faults[1:]) < 500, faults  # the largest concatenation alone has 4096
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    assert _C.arena_use()[0] == actual.nbytes


def test_maps_side_by_side() -> None:
    first, second = torch.randn(2, 3, 64, 64), torch.randn(2, 5, 64, 64)
    for layout in (torch.contiguous_format, torch.channels_last):
        maps = [first.contiguous(memory_format=layout), second]
        joint = joined_channels(maps, True)
        assert torch.equal(joint, torch.cat(maps, 1))
        assert joint.is_contiguous(memory_format=layout)
        assert _C.arena_use()[0] == joint.nbytes
        del joint
    for others in ([first, second.double()], [first, second.clone().requires_grad_()], [torch.randn(1, 2, 3)] * 2):
        joint = joined_channels(others, others[0].dim() == 4)
        assert torch.equal(joint, torch.cat(others, 1))
        assert joint.requires_grad == others[1].requires_grad
        assert _C.arena_use()[0] == 0
