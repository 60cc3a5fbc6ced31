"""nms, batched_nms and batched_nms_padded against the reference and torchvision, on every backend."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nms_by_class import by_class
from torch import Tensor

from fastcv import reference
from fastcv.ops import batched_nms, batched_nms_padded, nms

NAN, INF = float("nan"), float("inf")
THRESHOLDS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.95, 1.0)


def random_boxes(count: int, seed: int, dtype: torch.dtype = torch.float32, side: float = 60) -> tuple[Tensor, Tensor]:
    """Boxes of all sizes in a crowd, and scores."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 200 - 100
    sides = torch.rand(count, 2, generator=generator, dtype=torch.float64) ** 2 * side
    scores = torch.rand(count, generator=generator, dtype=torch.float64)
    return torch.cat([corner, corner + sides], dim=1).to(dtype), scores.to(dtype)


def hard_problem(seed: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, float]:
    """A problem of few boxes with ties, duplicates, overlaps at the threshold, degenerate and inverted boxes."""
    generator = torch.Generator().manual_seed(seed)
    count = int(torch.randint(0, 80, (), generator=generator))
    kind = seed % 5
    if kind == 0:  # whole coordinates: overlaps are simple fractions, many exactly at the threshold
        corner = torch.randint(-6, 6, (count, 2), generator=generator).double()
        sides = torch.randint(-1, 5, (count, 2), generator=generator).double()
        threshold = [0.0, 0.25, 1 / 3, 0.5, 0.6][seed // 5 % 5]
    elif kind == 1:  # neighbours of one box, near the threshold
        corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 2
        sides = 8 + torch.rand(count, 2, generator=generator, dtype=torch.float64)
        threshold = 0.6 + 0.02 * (seed // 5 % 10)
    else:
        corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 60 - 30
        sides = torch.rand(count, 2, generator=generator, dtype=torch.float64) ** 3 * 50
        threshold = float(torch.rand((), generator=generator))
    boxes = torch.cat([corner, corner + sides], dim=1)
    boxes = boxes * [1.0, 1e-3, 1e5][seed % 3] + [0.0, 1e4, -3e3][seed // 3 % 3]
    levels = [5, 10**6][seed % 2]
    scores = torch.randint(0, levels, (count,), generator=generator).double() / levels - 0.3
    return boxes.to(dtype), scores.to(dtype), threshold


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_agrees_with_torchvision(backend: Any, torchvision_ops: Any, dtype: torch.dtype) -> None:
    """Index for index on 250 problems made to be hard."""
    suppressed = 0
    for seed in range(250):
        boxes, scores, threshold = hard_problem(seed, dtype)
        expected = torchvision_ops.nms(boxes, scores, threshold)
        actual = nms(boxes.to(backend.device), scores.to(backend.device), threshold)
        assert torch.equal(actual.cpu(), expected), (seed, threshold)
        suppressed += len(boxes) - len(expected)
    assert suppressed > 2000


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_overlaps_one_step_around_the_threshold(backend: Any, torchvision_ops: Any, dtype: torch.dtype) -> None:
    """Thresholds that are overlaps of the boxes themselves, and their neighbours in double precision."""
    boxes, scores = random_boxes(40, 3, dtype, side=400)
    overlaps = torchvision_ops.box_iou(boxes, boxes)
    chosen = overlaps[(overlaps > 0.05) & (overlaps < 1)].unique().double()[::3]
    assert len(chosen) > 20
    for value in chosen.tolist():
        for threshold in (value, math.nextafter(value, 0.0), math.nextafter(value, 2.0)):
            expected = torchvision_ops.nms(boxes, scores, threshold)
            actual = nms(boxes.to(backend.device), scores.to(backend.device), threshold)
            assert torch.equal(actual.cpu(), expected)


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_many_boxes(backend: Any, torchvision_ops: Any, dtype: torch.dtype, threshold: float) -> None:
    """Enough for the grid of the CPU kernel and for several tiles of the CUDA kernel."""
    count = 1300 if backend.is_emulated else 3000
    boxes, scores = random_boxes(count, 5, dtype)
    boxes[::7] *= 30  # sizes that differ by far
    boxes[::11, 2:] = boxes[::11, :2] + 1e-3
    scores[::13] = scores[0]
    expected = torchvision_ops.nms(boxes, scores, threshold)
    assert torch.equal(nms(boxes.to(backend.device), scores.to(backend.device), threshold).cpu(), expected)


@pytest.mark.parametrize("threshold", [0.01, 0.2, 0.5, 0.8])
def test_suppressors_as_far_away_as_they_can_be(backend: Any, torchvision_ops: Any, threshold: float) -> None:
    """The windows of the CPU kernel's grid, where they are tight.

    The centres of two boxes are as far apart as an overlap above the threshold allows when one box lies within the
    other, at its edge. Thin boxes in between fill the cells of that octave, so that the cells are small.
    """
    if backend.is_cuda:
        pytest.skip("the grid is the CPU's")
    generator = torch.Generator().manual_seed(0)
    thin = torch.rand(6000, 4, generator=generator, dtype=torch.float64) * 400
    thin[:, 2:] = thin[:, :2] + torch.tensor([100.0, 1e-4])
    for trial in range(2):
        pairs = []
        for i in range(9):
            corner = torch.tensor([150.0 * (i % 3), 150.0 * (i // 3)]).double()
            corner += 40 * torch.rand(2, generator=generator, dtype=torch.float64)
            pairs.append(torch.cat([corner, corner + 100]))
            inner = pairs[-1].clone()
            side = (i + trial) % 4  # the side from which the inner box stands away
            inner[side] += (1 if side < 2 else -1) * 100 * (1 - threshold * 1.001)
            pairs.append(inner)
        boxes = torch.cat([torch.stack(pairs), thin]).float()
        scores = torch.rand(len(boxes), generator=generator)
        expected = torchvision_ops.nms(boxes, scores, threshold)
        kept = nms(boxes, scores, threshold)
        assert torch.equal(kept, expected)
        assert int((kept < 18).sum()) == 9


@pytest.mark.parametrize("scale", [1e-22, 1e-18, 1e17, 3e18])
def test_areas_at_the_ends_of_float32(backend: Any, torchvision_ops: Any, scale: float) -> None:
    """Areas that are subnormal, zero, nearly infinite or infinite."""
    boxes, scores = random_boxes(800, 8, torch.float64)
    boxes = (boxes * scale).float()
    for threshold in (0.0, 0.4):
        expected = torchvision_ops.nms(boxes, scores.float(), threshold)
        actual = nms(boxes.to(backend.device), scores.float().to(backend.device), threshold)
        assert torch.equal(actual.cpu(), expected)


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 511, 512, 513, 640, 641, 1024, 1025])
def test_sizes_around_the_edges_of_blocks(backend: Any, torchvision_ops: Any, count: int) -> None:
    boxes, scores = random_boxes(count, count)
    classes = torch.arange(count) // 65
    moved = boxes.to(backend.device), scores.to(backend.device)
    assert torch.equal(nms(*moved, 0.3).cpu(), torchvision_ops.nms(boxes, scores, 0.3))
    expected = by_class(torchvision_ops, boxes, scores, classes, 0.3)
    assert torch.equal(batched_nms(*moved, classes.to(backend.device), 0.3).cpu(), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batched_agrees_with_torchvision_class_by_class(backend: Any, torchvision_ops: Any, dtype: torch.dtype) -> None:
    for seed in range(200):
        boxes, scores, threshold = hard_problem(seed, dtype)
        generator = torch.Generator().manual_seed(seed)
        idxs = torch.randint(-2, 3, (len(boxes),), generator=generator)
        idxs = [idxs * (2**40 + 2**33), idxs.int(), idxs][seed % 3]
        expected = by_class(torchvision_ops, boxes, scores, idxs, threshold)
        moved = (tensor.to(backend.device) for tensor in (boxes, scores, idxs))
        assert torch.equal(batched_nms(*moved, threshold).cpu(), expected), seed


def test_batched_is_right_where_the_offset_trick_is_not(backend: Any, torchvision_ops: Any) -> None:
    """Negative and huge coordinates; torchvision's own loop over classes is the authority."""
    from torchvision.ops.boxes import _batched_nms_coordinate_trick, _batched_nms_vanilla

    boxes, scores = random_boxes(300, 1)
    idxs = torch.arange(300) % 7
    differs = 0
    for moved_boxes in (boxes - 500, boxes * 0.01 + torch.tensor([0.0, 0, 0, 0]), boxes + 3e5):
        moved_boxes[0] = torch.tensor([9e6, 9e6, 9e6 + 64, 9e6 + 64])
        expected = _batched_nms_vanilla(moved_boxes, scores, idxs, 0.3)
        actual = batched_nms(moved_boxes.to(backend.device), scores.to(backend.device), idxs.to(backend.device), 0.3)
        assert torch.equal(actual.cpu(), expected)
        differs += not torch.equal(_batched_nms_coordinate_trick(moved_boxes, scores, idxs, 0.3), expected)
    assert differs > 0


@pytest.mark.parametrize("classes", [1, 2, 9, 300, 1300])
def test_class_sizes(backend: Any, torchvision_ops: Any, classes: int) -> None:
    boxes, scores = random_boxes(1300, 4)
    idxs = (torch.rand(1300, generator=torch.Generator().manual_seed(classes)) ** 2 * classes).long()
    expected = by_class(torchvision_ops, boxes, scores, idxs, 0.2)
    actual = batched_nms(boxes.to(backend.device), scores.to(backend.device), idxs.to(backend.device), 0.2)
    assert torch.equal(actual.cpu(), expected)


def test_one_class_longer_than_a_block_takes(backend: Any, torchvision_ops: Any) -> None:
    """The CUDA kernels treat classes of more than 4096 boxes apart."""
    boxes, scores = random_boxes(5200, 4)
    boxes *= 20  # scattered: few pairs, so that the emulator stays quick
    boxes[:, 2:] = boxes[:, :2] + (boxes[:, 2:] - boxes[:, :2]) / 4
    idxs = (torch.arange(5200) % 10 == 0).long() * (torch.arange(5200) % 3 + 1)
    expected = by_class(torchvision_ops, boxes, scores, idxs, 0.3)
    actual = batched_nms(boxes.to(backend.device), scores.to(backend.device), idxs.to(backend.device), 0.3)
    assert torch.equal(actual.cpu(), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_boxes_are_decided_in_float32(backend: Any, torchvision_ops: Any, dtype: torch.dtype) -> None:
    for seed in range(20):
        boxes, scores, threshold = hard_problem(seed * 3 + 2, dtype)
        boxes = (boxes.float() % 250).to(dtype)
        idxs = torch.arange(len(boxes)) % 2
        expected = torchvision_ops.nms(boxes.float(), scores.float(), threshold)
        moved = boxes.to(backend.device), scores.to(backend.device)
        assert torch.equal(nms(*moved, threshold).cpu(), expected)
        assert torch.equal(nms(moved[0], moved[1].double(), threshold).cpu(), expected)
        expected = by_class(torchvision_ops, boxes.float(), scores.float(), idxs, threshold)
        assert torch.equal(batched_nms(*moved, idxs.to(backend.device), threshold).cpu(), expected)


def test_scores_that_are_not_finite(backend: Any) -> None:
    """Infinities are numbers like others, NaN comes last, ties and both zeros by index."""
    boxes = torch.tensor([[0.0, 0, 1, 1]]) + 10 * torch.arange(9)[:, None]
    scores = torch.tensor([NAN, -INF, 0.0, INF, -NAN, -0.0, -1e30, 1.0, INF])
    expected = [3, 8, 7, 2, 5, 6, 1, 0, 4]
    for repeat in (1, 20, 100):
        many = torch.cat([boxes + 100 * i for i in range(repeat)])
        actual = nms(many.to(backend.device), scores.repeat(repeat).to(backend.device), 0.5).cpu()
        order = [i * 9 + e for group in ([3, 8], [7], [2, 5], [6], [1], [0, 4]) for i in range(repeat) for e in group]
        assert actual.tolist() == order
    assert nms(boxes.to(backend.device), scores.to(backend.device), 0.5).tolist() == expected


@pytest.mark.parametrize("count", [60, 900])
def test_boxes_that_are_not_finite(backend: Any, count: int) -> None:
    """NaN boxes stay and leave others alone; infinite ones do what the arithmetic of the reference says."""
    boxes, scores = random_boxes(count, 6)
    for i, value in enumerate((NAN, INF, -INF, 3e38, -3e38)):
        for column in range(4):
            boxes[5 * column + i, column] = value
    boxes[20] = torch.tensor([-INF, -INF, INF, INF])
    for threshold in (0.0, 0.5):
        expected = reference.nms(boxes, scores, threshold)
        actual = nms(boxes.to(backend.device), scores.to(backend.device), threshold).cpu()
        assert torch.equal(actual, expected)
        assert set(range(0, 20, 5)) <= set(actual.tolist())


@pytest.mark.parametrize("images", [1, 3])
def test_padded(backend: Any, images: int) -> None:
    per_image = [random_boxes(70, seed) for seed in range(images)]
    boxes = torch.stack([b for b, _ in per_image]).to(backend.device)
    scores = torch.stack([s for _, s in per_image]).to(backend.device)
    idxs = (torch.arange(70 * images) % 3).reshape(images, 70).to(backend.device)
    for max_output in (0, 1, 20, 70, 100):
        indices, count = batched_nms_padded(boxes, scores, idxs, 0.2, max_output)
        plain, plain_count = batched_nms_padded(boxes, scores, None, 0.2, max_output)
        assert (indices.shape, count.shape) == ((images, max_output), (images,))
        for i in range(images):
            expected = batched_nms(boxes[i], scores[i], idxs[i], 0.2)[:max_output]
            assert count[i] == len(expected)
            assert torch.equal(indices[i, : len(expected)], expected)
            assert (indices[i, len(expected) :] == -1).all()
            expected = nms(boxes[i], scores[i], 0.2)[:max_output]
            assert torch.equal(plain[i, : plain_count[i]], expected)
            single, single_count = batched_nms_padded(boxes[i], scores[i], idxs[i], 0.2, max_output)
            assert (single.shape, single_count.shape) == ((max_output,), ())
            assert torch.equal(single, indices[i])


def test_strided(backend: Any) -> None:
    boxes, scores = random_boxes(90, 2)
    idxs = torch.arange(90) % 4
    expected = reference.batched_nms(boxes, scores, idxs, 0.3)
    wide = torch.full((90, 9), NAN)
    wide[:, 1::2] = boxes
    columns = torch.stack([scores, -scores], dim=1).to(backend.device)
    doubled = torch.stack([idxs, idxs + 1], dim=1).to(backend.device)
    for view in (wide.to(backend.device)[:, 1::2], boxes.T.contiguous().to(backend.device).T):
        assert torch.equal(batched_nms(view, columns[:, 0], doubled[:, 0], 0.3).cpu(), expected)
    shared = boxes.to(backend.device)[None].expand(2, 90, 4)
    indices, count = batched_nms_padded(shared, columns.T[:1].expand(2, 90), doubled.T, 0.3, 90)
    assert torch.equal(indices[0, : count[0]].cpu(), expected)
    one_class = torch.zeros(1, dtype=torch.int64, device=backend.device).expand(90)
    assert torch.equal(batched_nms(shared[0], columns[:, 0], one_class, 0.3), nms(shared[0], columns[:, 0], 0.3))


def test_offsets_beyond_32_bits(backend: Any) -> None:
    """Element offsets above 2^31, in a view of memory that is mostly never touched."""
    apart = 2**31 + 4096
    storage = torch.empty(apart + 4096, dtype=torch.float16, device=backend.device)
    view = storage.as_strided((2, 30, 4), (apart, 4, 1))
    boxes, scores = random_boxes(30, 2, torch.float16)
    view.copy_(boxes)
    expected = nms(boxes.to(backend.device), scores.to(backend.device), 0.3)
    indices, count = batched_nms_padded(view, scores.to(backend.device).expand(2, 30), None, 0.3, 30)
    assert torch.equal(indices[1, : count[1]], expected)


def test_batching_rule_and_no_gradient(backend: Any) -> None:
    boxes, scores = (tensor.to(backend.device).view(3, 20, -1) for tensor in random_boxes(60, 1))
    mapped = torch.vmap(lambda b, s: batched_nms_padded(b, s, None, 0.3, 8))(boxes, scores[..., 0])
    torch.testing.assert_close(mapped, batched_nms_padded(boxes, scores[..., 0], None, 0.3, 8))
    assert not nms(boxes[0].clone().requires_grad_(), scores[0, :, 0], 0.3).requires_grad


@pytest.mark.parametrize("backend", ["cpu-default"], indirect=True)
def test_compile_and_export(backend: Any) -> None:
    """What the contract suite does not: symbolic sizes, the result used in the graph, export."""

    class Suppression(torch.nn.Module):
        def forward(self, boxes: Tensor, scores: Tensor, idxs: Tensor) -> tuple[Tensor, ...]:
            padded = batched_nms_padded(boxes * 2, scores, idxs, 0.3, 12)
            return boxes[nms(boxes, scores, 0.3)] + 1, scores[batched_nms(boxes, scores, idxs, 0.3)], *padded

    module, problem = Suppression(), (*random_boxes(40, 1), torch.arange(40) % 3)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=True)
        for count in (40, 17, 30):
            arguments = [tensor[:count] for tensor in problem]
            torch.testing.assert_close(compiled(*arguments), module(*arguments), rtol=0, atol=0)
    exported = torch.export.export(module, problem, strict=False).module()
    torch.testing.assert_close(exported(*problem), module(*problem), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_extreme_numbers(backend: Any, dtype: torch.dtype) -> None:
    """Boxes and scores of the least, the largest and no numbers at all: every call comes to an end, with a result."""
    info = torch.finfo(dtype)
    values = [NAN, INF, -INF, 0.0, -0.0, 1e-45, 3e38, -3e38, 1.0, 1e-20, info.max, info.tiny]
    pool = torch.tensor(values, dtype=torch.float64).to(dtype)
    generator = torch.Generator().manual_seed(0)
    for count in (5, 100) if backend.is_emulated else (5, 100, 1500):
        for trial in range(6):
            chosen = pool[torch.randint(len(pool), (count, 5), generator=generator)]
            boxes, scores = chosen[:, :4], chosen[:, 4]
            if trial % 2:
                boxes[:, :2] = -boxes[:, 2:].abs()
            for threshold in (0.0, 0.5, 1.0, 5e-324):
                kept = nms(boxes.to(backend.device), scores.to(backend.device), threshold)
                assert 0 < len(kept) == len(kept.unique()) <= count


def test_extra_memory_is_linear(in_new_process: Callable[[str], str]) -> None:
    """A million boxes within 100 MB, where a mask of pairs would take 125 GB."""
    script = """
        import torch
        from fastcv.ops import nms

        def peak():
            return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

        count = 1_000_000
        corner = torch.rand(count, 2) * 30_000
        boxes, scores = torch.cat([corner, corner + 4 + 100 * torch.rand(count, 2)], 1), torch.rand(count)
        nms(boxes[:2000], scores[:2000], 0.5)
        torch.ones(4 << 20).add_(1)
        before = peak()
        kept = nms(boxes, scores, 0.5)
        print((peak() - before) / 1024, len(kept))
    """
    printed = in_new_process(script)
    megabytes, kept = printed.split()
    assert float(megabytes) <= 100
    assert int(kept) > 100_000


coordinate = st.one_of(st.integers(-8, 8).map(float), st.floats(-20, 20, width=32), st.sampled_from([NAN, INF, -INF]))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_anything_equals_the_reference(backend: Any, data: st.DataObject) -> None:
    draw = data.draw
    score = st.one_of(st.sampled_from([0.0, -0.0, 0.5, 1.0, NAN, INF, -INF]), st.floats(0, 1, width=32))
    rows = draw(st.lists(st.tuples(*[coordinate] * 4, score, st.integers(0, 2)), max_size=40))
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 6)
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    boxes, scores, idxs = table[:, :4].to(dtype), table[:, 4].to(dtype), table[:, 5].long()
    threshold = draw(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 1.0])))
    expected = reference.batched_nms(boxes, scores, idxs, threshold)
    actual = batched_nms(boxes.to(backend.device), scores.to(backend.device), idxs.to(backend.device), threshold)
    assert torch.equal(actual.cpu(), expected)
