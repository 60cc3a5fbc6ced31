"""sparse_kernel_map against the reference and against dense convolutions, on every backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastcv import reference
from fastcv.ops import sparse_kernel_map, sparse_reverse_map


def random_sites(count: int, shape: tuple[int, ...], batch: int = 1, seed: int = 0, ordered: bool = False) -> Tensor:
    """Distinct sites (count, 4), int32, in any order."""
    cells = batch * shape[0] * shape[1] * shape[2]
    generator = torch.Generator().manual_seed(seed)
    flat = torch.randperm(cells, generator=generator)[:count]
    if ordered:
        flat = flat.sort().values
    rest, x = flat // shape[2], flat % shape[2]
    rest, y = rest // shape[1], rest % shape[1]
    return torch.stack([rest // shape[0], rest % shape[0], y, x], dim=1).int()


def assert_equals_reference(device: str, indices: Tensor, *arguments: Any, **options: Any) -> None:
    expected = reference.sparse_kernel_map(indices, *arguments, **options)
    actual = sparse_kernel_map(indices.to(device), *arguments, **options)
    for name, one, other in zip(("out_indices", "neighbours", "reverse"), actual, expected, strict=True):
        assert one.dtype is torch.int32
        assert torch.equal(one.cpu(), other), (name, arguments, options)


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, (1, 2, 3), (3, 1, 5)])
@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_submanifold(backend: Any, kernel: Any, dilation: int) -> None:
    for ordered in (False, True):
        indices = random_sites(90, (5, 6, 7), batch=2, ordered=ordered)
        assert_equals_reference(backend.device, indices, (5, 6, 7), 2, kernel, dilation=dilation, subm=True)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("stride", [1, 2, 3, (1, 2, 3)])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, (3, 1, 2)])
def test_convolution(backend: Any, kernel: Any, stride: Any, transposed: bool) -> None:
    indices = random_sites(40, (6, 7, 9), batch=2)
    for padding, dilation in ((0, 1), (1, 1), ((0, 1, 2), (2, 1, 3))):
        if padding != 0 and kernel == 1:
            continue  # a transposed convolution would have no cells at the border
        extra = 1 if transposed and stride == 3 else 0
        try:
            reference.sparse_kernel_map(
                indices[:1], (6, 7, 9), 2, kernel, stride, padding, dilation, extra, transposed=transposed
            )
        except ValueError:
            continue
        assert_equals_reference(
            backend.device, indices, (6, 7, 9), 2, kernel, stride, padding, dilation, extra, transposed=transposed
        )


def test_rows_longer_than_a_word(backend: Any) -> None:
    """Neighbours across the borders of 64 sites, and beyond the next word."""
    for width in (63, 64, 65, 127, 128, 129, 200):
        indices = random_sites(70, (1, 2, width), seed=width)
        for dilation in (1, 31, 63, 64, 65, 100):
            options: dict[str, Any] = {"dilation": (1, 1, dilation), "padding": (0, 0, dilation)}
            assert_equals_reference(backend.device, indices, (1, 2, width), 1, (1, 2, 3), subm=True, **options)
            assert_equals_reference(backend.device, indices, (1, 2, width), 1, (1, 1, 3), (1, 1, 2), **options)
        assert_equals_reference(backend.device, indices, (1, 2, width), 1, (1, 1, 3), (1, 1, 50), transposed=True)


def test_dense_sites_cover_the_output_of_conv3d(backend: Any) -> None:
    """Where all sites are active, so are all outputs that the kernel reaches, and the counts are those of conv3d."""
    shape = (4, 5, 6)
    indices = random_sites(120, shape, ordered=True)
    for stride, padding, dilation in ((1, 0, 1), (2, 1, 1), (1, 2, 2), (3, 0, 1)):
        out, neighbours, _ = sparse_kernel_map(indices.to(backend.device), shape, 1, 3, stride, padding, dilation)
        ones = torch.ones(1, 1, *shape)
        counts = torch.nn.functional.conv3d(ones, torch.ones(1, 1, 3, 3, 3), None, stride, padding, dilation)[0, 0]
        z, y, x = out.cpu().long()[:, 1:].unbind(1)
        assert torch.equal((neighbours.cpu() >= 0).sum(0).float(), counts[z, y, x])
        assert len(out) == (counts > 0).sum()


def test_submanifold_returns_the_indices_themselves(backend: Any) -> None:
    indices = random_sites(10, (4, 4, 4)).to(backend.device)
    assert sparse_kernel_map(indices, (4, 4, 4), 1, 3, stride=2, padding=7, subm=True)[0] is indices


def test_permuted_rows_give_permuted_maps(backend: Any) -> None:
    shape = (4, 9, 70)
    indices = random_sites(300, shape, batch=2).to(backend.device)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(5)).to(backend.device)
    place = order.argsort().int()
    for options in ({"subm": True}, {"stride": 2, "padding": 1}):
        out, neighbours, reverse = sparse_kernel_map(indices, shape, 2, 3, **options)  # type: ignore[arg-type]
        moved_out, moved, moved_reverse = sparse_kernel_map(
            indices[order],
            shape,
            2,
            3,
            **options,  # type: ignore[arg-type]
        )
        renamed = torch.where(neighbours >= 0, place[neighbours.clamp(min=0).long()], -1)
        if "subm" in options:
            assert torch.equal(moved, renamed[:, order])
        else:
            assert torch.equal(moved_out, out)
            assert torch.equal(moved, renamed)
            assert torch.equal(moved_reverse, reverse[:, order])


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("options", [{"subm": True}, {"stride": 2, "padding": 1}, {"transposed": True, "stride": 2}])
def test_no_site_and_one(backend: Any, count: int, options: dict[str, Any]) -> None:
    indices = torch.tensor([[0, 3, 2, 1]], dtype=torch.int32)[:count]
    out, neighbours, reverse = sparse_kernel_map(indices.to(backend.device), (7, 6, 5), 1, 3, **options)
    assert neighbours.shape == (27, len(out))
    assert reverse.shape == (27, count)
    assert_equals_reference(backend.device, indices, (7, 6, 5), 1, 3, **options)


def test_no_output_site(backend: Any) -> None:
    """Sites that a stride larger than the kernel passes over."""
    indices = torch.tensor([[0, 1, 1, 1], [0, 3, 3, 3]], dtype=torch.int32)
    assert_equals_reference(backend.device, indices, (4, 4, 4), 1, 1, 2)
    out, neighbours, _ = sparse_kernel_map(indices.to(backend.device), (4, 4, 4), 1, 1, 2)
    assert out.shape == (0, 4)
    assert neighbours.shape == (1, 0)


def test_huge_spatial_shapes(backend: Any) -> None:
    """Cells beyond 2^31 and 2^32, in the input and in the output of a transposed convolution."""
    low = random_sites(60, (3, 3, 70), seed=1)
    far = low + torch.tensor([0, 2997, 2990, 2930], dtype=torch.int32)
    middle = low + torch.tensor([0, 1431, 1655, 1], dtype=torch.int32)  # 2^31 + 2^32 cells and more
    indices = torch.cat([low, far, middle])
    shape = (3000, 3000, 3000)
    for options in (
        {"kernel_size": 3, "subm": True},
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 2, "stride": 2, "transposed": True},
    ):
        assert_equals_reference(backend.device, indices, shape, 1, **options)
    widest = 2**31 - 1
    thin = torch.tensor([[0, 0, 0, widest - 1], [0, 0, 0, 0], [0, 0, 0, widest - 2]], dtype=torch.int32)
    assert_equals_reference(backend.device, thin, (1, 1, widest), 1, (1, 1, 3), subm=True)
    assert_equals_reference(backend.device, thin, (1, 1, widest), 1, (1, 1, 3), (1, 1, 2), (0, 0, 1))


def test_large_kernels(backend: Any) -> None:
    indices = random_sites(50, (8, 8, 8))
    assert_equals_reference(backend.device, indices, (8, 8, 8), 1, 5, subm=True)
    assert_equals_reference(backend.device, indices[:20], (8, 8, 8), 1, 5, 1, 2)
    assert_equals_reference(backend.device, indices[:8], (8, 8, 8), 1, (7, 9, 11), 1, 5)


def test_two_maps_are_each_others_inverse(backend: Any) -> None:
    """Large enough for pieces of their own."""
    shape = (8, 60, 200)
    indices = random_sites(3000 if backend.is_cuda else 20000, shape, batch=2).to(backend.device)
    out, neighbours, reverse = sparse_kernel_map(indices, shape, 2, 3, 2, 1)
    for k in (0, 13, 26):
        (fed,) = (neighbours[k] >= 0).nonzero(as_tuple=True)
        assert torch.equal(reverse[k][neighbours[k][fed].long()].long(), fed)
        source = indices[neighbours[k][fed].long()][:, 1:]
        step = torch.tensor([k // 9, k // 3 % 3, k % 3], device=backend.device)
        assert torch.equal(source.long(), out[fed][:, 1:].long() * 2 - 1 + step)
    mirrored = sparse_kernel_map(indices, shape, 2, 3, subm=True)
    assert torch.equal(mirrored[2], mirrored[1].flip(0))


SITES = torch.tensor([[0, 0, 0, 0], [1, 2, 3, 4], [0, 1, 1, 1]], dtype=torch.int32)


@pytest.mark.parametrize("options", [{"subm": True}, {"kernel_size": 2, "subm": True}, {}, {"transposed": True}])
def test_wrong_sites(backend: Any, options: dict[str, Any]) -> None:
    """Found by every backend in its own way."""

    def call(*rows: list[int]) -> None:
        indices = torch.cat([SITES, torch.tensor(rows, dtype=torch.int32)]).to(backend.device)
        sparse_kernel_map(indices, (4, 5, 6), 2, **{"kernel_size": 3, "padding": 1, **options})

    for wrong in ([2, 0, 0, 0], [-1, 0, 0, 0], [0, 4, 0, 0], [0, 0, -3, 0], [0, 0, 0, 6], [0, 0, 0, -(2**31)]):
        with pytest.raises(ValueError, match="indices must be at least 0") as caught:
            call([1, 1, 1, 1], wrong)
        assert str(caught.value) == (f"indices must be at least 0 and below (2, 4, 5, 6), got {tuple(wrong)} in row 4")
    with pytest.raises(ValueError, match=r"^indices must have each site once, got \(1, 2, 3, 4\) "):
        call([1, 1, 1, 1], [1, 2, 3, 4])


def test_strided_indices(backend: Any) -> None:
    indices = random_sites(30, (4, 5, 6)).to(backend.device)
    wide = torch.stack([indices, indices], dim=2)[:, :, 0]
    assert not wide.is_contiguous()
    for options in ({"subm": True}, {"stride": 2}):
        for one, other in zip(
            sparse_kernel_map(wide, (4, 5, 6), 1, 3, **options),  # type: ignore[arg-type]
            sparse_kernel_map(indices, (4, 5, 6), 1, 3, **options),  # type: ignore[arg-type]
            strict=True,
        ):
            assert torch.equal(one, other)


def test_extremes_together_do_not_end_the_process(in_new_process: Callable[[str], str]) -> None:
    """The worst of them in a process of its own, where a crash would show as a signal."""
    script = """
        import itertools, torch
        from fastcv.ops import sparse_kernel_map
        good = torch.tensor([[0, 1, 2, 3], [0, 0, 0, 0]], dtype=torch.int32)
        extreme = (-2**31, -1, 0, 3, 2**31 - 1)
        tried = 0
        for values in itertools.product(extreme, repeat=4):
            for options in ({"subm": True}, {"stride": 2}, {"transposed": True, "stride": 3}):
                try:
                    sparse_kernel_map(torch.tensor([list(values)], dtype=torch.int32), (4, 4, 4), 1, 3, **options)
                except ValueError:
                    tried += 1
        for shape in itertools.product((0, 1, 2**31 - 1, 2**62), repeat=3):
            for kernel, stride, padding, dilation in itertools.product(
                (1, 32768), (1, 2**30, 2**62), (0, 2**30, 2**62), (1, 2**25, 2**62)
            ):
                for flags in ({"subm": True}, {}, {"transposed": True}):
                    try:
                        sparse_kernel_map(good, shape, 1, (1, 1, kernel), stride, padding, dilation, **flags)
                    except (ValueError, TypeError):
                        tried += 1
        print("done", tried)
    """
    printed = in_new_process(script)
    assert "done" in printed


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_geometry_equals_the_reference(backend: Any, data: st.DataObject) -> None:
    draw = data.draw
    sizes = st.sampled_from([1, 2, 3, 5, 8, 64, 65])
    shape = (draw(st.integers(1, 6)), draw(st.integers(1, 6)), draw(sizes))
    batch = draw(st.integers(1, 3))
    count = draw(st.integers(0, min(40, batch * shape[0] * shape[1] * shape[2])))
    indices = random_sites(count, shape, batch, draw(st.integers(0, 1000)), draw(st.booleans()))

    def triple(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(3))

    options: dict[str, Any] = {
        "kernel_size": triple(1, 5),
        "stride": triple(1, 3),
        "padding": triple(0, 2),
        "dilation": triple(1, 3),
        **draw(st.sampled_from([{"subm": True}, {}, {"transposed": True}])),
    }
    try:
        reference.sparse_kernel_map(indices, shape, batch, **options)
    except ValueError:
        with pytest.raises(ValueError, match="must leave an output"):
            sparse_kernel_map(indices.to(backend.device), shape, batch, **options)
        return
    assert_equals_reference(backend.device, indices, shape, batch, **options)


@pytest.mark.parametrize("kernel", [1, 2, 3, (1, 3, 2)])
@pytest.mark.parametrize("options", [{"subm": True}, {"stride": 2, "padding": 1}, {"transposed": True, "stride": 3}])
@pytest.mark.parametrize("ascending", [True, False])
def test_the_reverse_made_later_or_never(backend: Any, kernel: Any, options: dict[str, Any], ascending: bool) -> None:
    """The other maps are the same without it, and it is the same when it is made of them."""
    shape = (4, 9, 70)
    indices = random_sites(300, shape, batch=2)
    if ascending:
        indices = torch.tensor(sorted(indices.tolist()), dtype=torch.int32)
    whole = sparse_kernel_map(indices.to(backend.device), shape, 2, kernel, **options)
    part = sparse_kernel_map(indices.to(backend.device), shape, 2, kernel, **options, with_reverse=False)
    assert torch.equal(part[0], whole[0])
    assert torch.equal(part[1], whole[1])
    assert part[2].shape == (0, 300)
    assert torch.equal(sparse_reverse_map(part[1], 300), whole[2])
    expected = reference.sparse_kernel_map(indices, shape, 2, kernel, **options)[2]
    assert torch.equal(sparse_reverse_map(part[1], 300).cpu(), expected)
