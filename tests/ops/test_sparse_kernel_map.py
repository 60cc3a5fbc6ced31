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
from fastcv.ops import sparse_kernel_map


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


def test_same_for_every_run_and_thread_count(backend: Any) -> None:
    shape = (8, 60, 200)
    indices = random_sites(3000 if backend.is_cuda else 20000, shape, batch=2).to(backend.device)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 5, 1):
            torch.set_num_threads(count)
            results.append(
                (
                    *sparse_kernel_map(indices, shape, 2, 3, subm=True),
                    *sparse_kernel_map(indices, shape, 2, 3, 2, 1),
                )
            )
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        assert all(torch.equal(one, other) for one, other in zip(result, results[0], strict=True))
    # Large enough for pieces of their own: the two maps of a convolution are each other's inverse.
    _, _, _, out, neighbours, reverse = results[0]
    for k in (0, 13, 26):
        (fed,) = (neighbours[k] >= 0).nonzero(as_tuple=True)
        assert torch.equal(reverse[k][neighbours[k][fed].long()].long(), fed)
        source = indices[neighbours[k][fed].long()][:, 1:]
        step = torch.tensor([k // 9, k // 3 % 3, k % 3], device=backend.device)
        assert torch.equal(source.long(), out[fed][:, 1:].long() * 2 - 1 + step)


def site(*coordinates: int) -> Tensor:
    return torch.tensor([coordinates], dtype=torch.int32)


SITES = torch.tensor([[0, 0, 0, 0], [1, 2, 3, 4], [0, 1, 1, 1]], dtype=torch.int32)
GOOD: dict[str, Any] = {"indices": SITES, "spatial_shape": (4, 5, 6), "batch_size": 2, "kernel_size": 3}
BAD_ARGUMENTS = [
    ({"indices": [[0, 0, 0, 0]]}, TypeError, "indices must be a torch.Tensor, got list"),
    ({"indices": SITES.long()}, TypeError, "indices must be .*int32, got .*int64"),
    ({"indices": SITES[:, :3]}, ValueError, r"indices must have shape \(N, 4\).* got \(3, 3\)"),
    ({"indices": SITES[0]}, ValueError, r"indices must have shape \(N, 4\).* got \(4,\)"),
    *(
        ({"indices": torch.cat([SITES, site(*where)])}, ValueError, rf"indices\[3\] = \({text}\) lies outside")
        for where, text in (
            ((2, 0, 0, 0), "2, 0, 0, 0"),
            ((-1, 0, 0, 0), "-1, 0, 0, 0"),
            ((0, 4, 0, 0), "0, 4, 0, 0"),
            ((0, 0, -3, 0), "0, 0, -3, 0"),
            ((0, 0, 5, 0), "0, 0, 5, 0"),
            ((0, 0, 0, 6), "0, 0, 0, 6"),
            ((0, 0, 0, -(2**31)), "0, 0, 0, -2147483648"),
        )
    ),
    ({"indices": torch.cat([SITES, SITES[1:2]])}, ValueError, r"\(1, 2, 3, 4\) more than once"),
    ({"batch_size": 1}, ValueError, r"indices\[1\] = \(1, 2, 3, 4\) lies outside"),
    ({"batch_size": -1}, ValueError, r"batch_size must be in \[0, 2\^31\), got -1"),
    ({"batch_size": 2.0}, TypeError, "batch_size must be an int, got 2.0"),
    ({"spatial_shape": (4, 5)}, TypeError, r"spatial_shape must be an int or three ints .* got \(4, 5\)"),
    ({"spatial_shape": (4, 5, -6)}, ValueError, "spatial_shape must be at least 0"),
    ({"spatial_shape": (4, 5, 2**31)}, ValueError, r"spatial_shape must be in \[0, 2\^31\)"),
    ({"spatial_shape": (2**30, 2**30, 8)}, ValueError, "too many cells: coordinates must fit 62 bits"),
    ({"kernel_size": 0}, ValueError, "kernel_size must be positive, got 0"),
    ({"kernel_size": "3"}, TypeError, "kernel_size must be an int or three ints"),
    ({"kernel_size": 33}, ValueError, "kernel_size must have at most 32768 elements"),
    ({"kernel_size": (9, 3, 3)}, ValueError, "leaves no output"),
    ({"stride": 0}, ValueError, "stride must be positive, got 0"),
    ({"stride": 2**40}, ValueError, "at most 2\\^30"),
    ({"padding": -1}, ValueError, "padding must be at least 0, got -1"),
    ({"dilation": (1, 0, 1)}, ValueError, r"dilation must be positive, got \(1, 0, 1\)"),
    ({"subm": True, "transposed": True}, ValueError, "subm and transposed"),
]


@pytest.mark.parametrize("subm", [False, True])
@pytest.mark.parametrize(("changed", "error", "message"), BAD_ARGUMENTS)
def test_bad_arguments(backend: Any, changed: dict[str, Any], error: type[Exception], message: str, subm: bool) -> None:
    if subm and "leaves no output" in message:
        pytest.skip("a submanifold convolution has no such thing")
    if subm and changed.get("stride") == 2**40:
        pytest.skip("the stride of a submanifold convolution does not count")
    arguments = {
        name: value.to(backend.device) if isinstance(value, Tensor) else value
        for name, value in {**GOOD, "subm": subm, **changed}.items()
    }
    with pytest.raises(error, match=message):
        sparse_kernel_map(**arguments)


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


def test_opcheck(backend: Any) -> None:
    indices = random_sites(20, (4, 5, 6)).to(backend.device)
    geometry = [4, 5, 6, 4, 5, 6, 3, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    torch.library.opcheck(torch.ops.fastcv.sparse_submanifold_kernel_map.default, (indices, geometry, 1))
    torch.library.opcheck(
        torch.ops.fastcv.sparse_kernel_map.default,
        (indices, geometry, 1, False),
        test_utils=("test_schema", "test_faketensor"),
    )


def test_compile(backend: Any) -> None:
    def submanifold(indices: Tensor) -> tuple[Tensor, Tensor]:
        _, neighbours, reverse = sparse_kernel_map(indices, (4, 5, 6), 1, 3, subm=True)
        return neighbours + 1, reverse

    def convolution(indices: Tensor) -> tuple[Tensor, Tensor]:
        out, neighbours, _ = sparse_kernel_map(indices, (4, 5, 6), 1, 3, 2, 1)
        return out + 1, neighbours

    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        for function in (submanifold, convolution):
            compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
            for count in (20, 9):
                indices = random_sites(count, (4, 5, 6)).to(backend.device)
                for one, other in zip(compiled(indices), function(indices), strict=True):
                    assert torch.equal(one, other)


def test_bad_input_does_not_end_the_process(in_new_process: Callable[[str], str]) -> None:
    """The worst of them in a process of its own, where a crash would show as a signal."""
    script = """
        import itertools, torch
        from fastcv import _C
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
        geometry = [4, 4, 4, 4, 4, 4, 3, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1]
        results = (None, (), (None, None, None), (good, good, good), (None, good, good), (None, 3, 4),
                   (None, torch.zeros(27, 2, dtype=torch.int32), torch.zeros(27, 1, dtype=torch.int32)))
        for result in results:
            for subm in (False, True):
                try:
                    _C.sparse_kernel_map(good, geometry, 1, subm, False, lambda count: result)
                except (TypeError, ValueError, RuntimeError):
                    tried += 1
        def fail(count):
            raise KeyError("allocate")
        try:
            _C.sparse_kernel_map(good, geometry, 1, False, False, fail)
        except KeyError:
            tried += 1
        for wrong in (geometry[:5], [-1] * 18, [2**62] * 18, ["a"] * 18, None):
            try:
                _C.sparse_kernel_map(good, wrong, 1, True, False, fail)
            except (TypeError, ValueError):
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
        with pytest.raises(ValueError, match="leaves no output"):
            sparse_kernel_map(indices.to(backend.device), shape, batch, **options)
        return
    assert_equals_reference(backend.device, indices, shape, batch, **options)
