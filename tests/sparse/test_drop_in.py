"""What programs written for spconv 2 import beside its layers, and fastcv in its place."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sparse_backbones import BACKBONES, example
from torch import Tensor, nn

from fastcv import ops, sparse
from fastcv.sparse.functional import sparse_add, sparse_add_hash_based

IMPORTS = """
    import sys
    sys.path.insert(0, {tests!r})
    import torch
    from fastcv.compat import install_as_spconv
    install_as_spconv()
    install_as_spconv()
"""


def run(in_new_process: Callable[[str], str], script: str) -> str:
    import textwrap

    tests = str(Path(__file__).resolve().parents[1])
    return in_new_process(textwrap.dedent(IMPORTS.format(tests=tests)) + textwrap.dedent(script))


def test_imports_of_programs(in_new_process: Callable[[str], str]) -> None:
    """The lines that OpenPCDet, mmdet3d, Pointcept and others begin with."""
    run(
        in_new_process,
        """
        import spconv
        assert float(spconv.__version__[2:]) >= 2.2 and spconv.SPCONV_VERSION_NUMBERS[0] == 2
        import spconv.pytorch as spconv
        from spconv.pytorch import ops, functional as Fsp
        from spconv.core import ConvAlgo
        from spconv.constants import FILTER_HWIO, SAVED_WEIGHT_LAYOUT, SPCONV_ALLOW_TF32
        assert (FILTER_HWIO, SPCONV_ALLOW_TF32) == (False, False)
        from spconv.pytorch.core import ImplicitGemmIndiceData, IndiceData, SparseConvTensor, expand_nd, scatter_nd
        from spconv.pytorch.modules import SparseModule, SparseSequential, is_spconv_module
        from spconv.pytorch.conv import SparseConvolution, SubMConv3d
        from spconv.pytorch.utils import PointToVoxel, gather_features_by_pc_voxel_id
        from spconv.pytorch.functional import sparse_add
        from spconv.pytorch.tables import AddTable, ConcatTable, JoinTable
        from spconv.pytorch.hash import HashTable
        from spconv.pytorch.pool import SparseMaxPool3d
        from spconv.pytorch.identity import Identity
        from spconv.pytorch import (SparseConv2d, SparseConv3d, SparseConv4d, SparseConvTranspose2d,
                                    SparseConvTranspose3d, SparseInverseConv2d, SparseInverseConv3d, SubMConv2d,
                                    SubMConv4d, assign_name_for_sparse_modules, ToDense, RemoveGrid)
        try:
            from spconv.utils import VoxelGeneratorV2
        except ImportError:
            from spconv.utils import Point2VoxelCPU3d
        import cumm.tensorview as tv
        assert expand_nd(3, 2) == [2, 2, 2]
        assert isinstance(SubMConv3d(1, 1, 3, algo=ConvAlgo.Native), spconv.conv.SparseConvolution)
        assert spconv.modules.is_spconv_module(ToDense()) and not is_spconv_module(torch.nn.ReLU())
        """,
    )


@pytest.mark.parametrize("name", BACKBONES)
def test_backbones_run_under_the_name(in_new_process: Callable[[str], str], name: str) -> None:
    """They give the same as with ``fastcv.sparse``, and train."""
    seeded = f"torch.manual_seed(0); net = BACKBONES[{name!r}]({{}}); output = net(example({{}}))"
    script = f"""
    import spconv.pytorch as spconv
    from fastcv import sparse
    from sparse_backbones import BACKBONES, example
    assert spconv is sparse
    {seeded.format("spconv", "spconv")}
    output = output if isinstance(output, torch.Tensor) else output.features
    output.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    """
    run(in_new_process, script)


def test_not_after_spconv_itself(in_new_process: Callable[[str], str]) -> None:
    in_new_process("""
        import sys, types
        sys.modules["spconv"] = types.ModuleType("spconv")
        from fastcv.compat import install_as_spconv
        try:
            install_as_spconv()
        except RuntimeError as error:
            assert "before spconv is imported" in str(error)
        else:
            raise AssertionError
    """)
    assert "spconv" not in sys.modules or hasattr(sys.modules["spconv"], "__file__")


def small(seed: int, count: int, channels: int = 3) -> sparse.SparseConvTensor:
    cells = torch.randperm(2 * 4 * 5 * 6, generator=torch.Generator().manual_seed(seed))[:count]
    sites = torch.stack([cells // 120, cells // 30 % 4, cells // 6 % 5, cells % 6], 1).int()
    features = torch.randn(count, channels, generator=torch.Generator().manual_seed(seed))
    return sparse.SparseConvTensor(features, sites, [4, 5, 6], 2)


@pytest.mark.parametrize("add", [sparse_add, sparse_add_hash_based, lambda *x: sparse.AddTableMisaligned()(x)])
def test_sparse_add(add: Any) -> None:
    parts = [small(seed, count) for seed, count in ((0, 30), (1, 50), (2, 1), (3, 0))]
    leaf = parts[0].features.clone().requires_grad_()
    parts[0] = parts[0].replace_feature(leaf)
    total = add(*parts)
    torch.testing.assert_close(total.dense(), sum(x.dense() for x in parts))
    assert len(total.indices) == len(total.indices.unique(dim=0))
    weight = torch.randn_like(total.features)
    (gradient,) = torch.autograd.grad((total.features * weight).sum(), leaf)
    grid = total.replace_feature(weight).dense().movedim(1, -1)
    torch.testing.assert_close(gradient, grid[parts[0].indices.long().unbind(1)])


def test_sparse_add_keeps_maps_that_fit() -> None:
    whole = sparse.SubMConv3d(3, 3, 3, indice_key="a")(small(0, 40))
    part = whole.select_by_index(torch.arange(0, 40, 3))
    total = sparse_add(part, whole)
    assert torch.equal(total.indices, whole.indices)
    assert total.indice_dict is whole.indice_dict
    torch.testing.assert_close(total.dense(), part.dense() + whole.dense())
    assert not sparse_add(part, small(1, 5)).indice_dict
    with pytest.raises(ValueError, match="must have the same grid and channels"):
        sparse_add(whole, small(0, 3, channels=2))
    with pytest.raises(ValueError, match="got none"):
        sparse_add()


def test_tables() -> None:
    x = small(0, 20)
    net = sparse.SparseSequential(
        sparse.ConcatTable().add(sparse.Identity()).add(sparse.SubMConv3d(3, 5, 3)), sparse.JoinTable()
    )
    y = net(x)
    assert y.features.shape == (20, 8)
    assert torch.equal(y.features[:, :3], x.features)
    both = sparse.AddTable()([x, x])
    assert torch.equal(both.features, 2 * x.features)
    for table in (sparse.AddTable(), sparse.JoinTable()):
        with pytest.raises(ValueError, match="only where their sites are the same"):
            table([x, small(1, 20)])


def test_names_and_kinds_of_modules() -> None:
    net = nn.ModuleDict({"a": sparse.SparseSequential(sparse.SubMConv3d(3, 3, 3), nn.ReLU())})
    sparse.assign_name_for_sparse_modules(net)
    assert net["a"][0]._sparse_unique_name == "a.0"
    assert sparse.modules.is_sparse_conv(net["a"][0])
    assert not sparse.modules.is_sparse_conv(net["a"])
    assert sparse.SparseConv3d(3, 3, 3, indice_key="a").is_inverseable()
    assert not sparse.SubMConv3d(3, 3, 3, indice_key="a").is_inverseable()
    assert sparse.SubMConv3d(3, 3, 3, bias=False)._parameters["bias"] is None
    x = sparse.RemoveGrid()(sparse.SparseConvTensor(torch.zeros(0, 1), torch.zeros(0, 2).int(), [3], 1, torch.ones(1)))
    assert x.grid is None
    other = small(0, 20)
    layer = sparse.SubMConv3d(3, 3, 3)
    torch.testing.assert_close(layer(other, add_input=other).features, layer(other).features + other.features)


def test_attributes_of_tensors_and_maps() -> None:
    x = sparse.SparseConvTensor(
        torch.randn(20, 3),
        small(0, 20).indices,
        [4, 5, 6],
        2,
        None,
        None,
        None,
        False,
        True,
        True,
        sparse.ConvAlgo.Native,
    )
    y = sparse.SparseConv3d(3, 4, 3, (2, 1, 1), (1, 1, 0), indice_key="a")(x)
    assert y.force_algo is sparse.ConvAlgo.Native
    assert (y.benchmark_record, y.thrust_allocator, y._timer, y.int8_scale) == ({}, None, None, None)
    assert not y.is_quantized
    assert torch.equal(y.dequantize().features, y.features)
    with pytest.raises(ValueError, match="must be quantized"):
        y.q_scale()
    links = y.find_indice_pair("a")
    assert links is not None
    assert (links.ksize, links.stride) == ([3, 3, 3], [2, 1, 1])
    assert (links.padding, links.dilation, links.is_subm) == ([1, 1, 0], [1, 1, 1], False)
    assert torch.equal(links.pair_fwd, links.neighbours)
    assert torch.equal(links.pair_bwd, links.reverse)
    pairs, counts = links.indice_pairs, links.indice_pair_num
    assert pairs.shape == (2, 27, 20)
    made = sparse.ops.get_indice_pairs(x.indices, 2, [4, 5, 6], sparse.ConvAlgo.Native, 3, [2, 1, 1], [1, 1, 0], 1, 0)
    assert all(torch.equal(a, b) for a, b in zip(made, (y.indices, pairs, counts), strict=True))
    rebuilt = torch.full_like(links.neighbours, -1)
    for k, count in enumerate(counts.tolist()):
        source, target = pairs[:, k, :count].long()
        rebuilt[k, target] = source.int()
        assert (pairs[:, k, count:] == -1).all()
    assert torch.equal(rebuilt, links.neighbours)


def test_other_rows_and_then_their_sites() -> None:
    """As VoxelNeXt joins its scales."""
    x, other = small(0, 20), small(1, 7)
    y = x.replace_feature(torch.cat([x.features, other.features]))
    for use in (y.dense, lambda: sparse.SubMConv3d(3, 3, 3)(y)):
        with pytest.raises(ValueError, match="features must have a row for each of 20 sites"):
            use()
    y.indices = torch.cat([x.indices, other.indices])
    assert len(y.features) == len(y.indices)
    y = sparse_add(y.select_by_index(torch.arange(20)), y.select_by_index(torch.arange(20, 27)))
    torch.testing.assert_close(sparse.ToDense()(y), x.dense() + other.dense())


def test_scatter_nd() -> None:
    indices, rows = torch.tensor([[0, 2], [1, 0]], dtype=torch.int32), torch.tensor([[1.0, 2], [3, 4]])
    expected = torch.zeros(2, 3, 2)
    expected[0, 2], expected[1, 0] = rows
    assert torch.equal(sparse.core.scatter_nd(indices, rows, [2, 3, 2]), expected)


def test_output_sizes() -> None:
    for size, kernel, stride, padding, dilation in (((9, 8), 3, 2, 1, 1), ((7, 6), (2, 3), 1, (0, 1), 2)):
        grid = torch.zeros(1, 1, *size)
        weight = torch.zeros(1, 1, *((kernel,) * 2 if isinstance(kernel, int) else kernel))
        options = (stride, padding)
        conv = torch.nn.functional.conv2d(grid, weight, None, *options, dilation)
        transposed = torch.nn.functional.conv_transpose2d(grid, weight, None, *options, 0, 1, dilation)
        arguments = (size, kernel, stride, padding, dilation)
        assert sparse.ops.get_conv_output_size(*arguments) == list(conv.shape[2:])
        assert sparse.ops.get_deconv_output_size(*arguments, 0) == list(transposed.shape[2:])


# ---- voxels ----------------------------------------------------------------------------------------------------------


POINTS = torch.tensor(
    [[0.1, 0.1, 0.1, 7], [0.2, 0.2, 0.2, 8], [0.3, 0.3, 0.3, 9], [0.9, 0.1, 0.1, 1], [5, 5, 5, 2], [0.1, 0.9, 0.1, 3]]
)


def test_point_to_voxel() -> None:
    generator = sparse.PointToVoxel([0.5, 0.25, 0.5], [0, 0, 0, 1, 1, 2], 4, 2, 2, torch.device("cpu"))
    assert (generator.grid_size, generator.vsize) == ([4, 4, 2], [0.5, 0.25, 0.5])
    voxels, indices, count, ids = generator.generate_voxel_with_id(POINTS)
    assert [t.tolist() for t in (indices, count, ids)] == [[[0, 0, 0], [0, 1, 0]], [2, 1], [0, 0, 1, -1, -1, -1]]
    assert torch.equal(voxels[1], torch.stack([POINTS[2], torch.zeros(4)]))
    assert all(torch.equal(a, b) for a, b in zip(generator(POINTS), (voxels, indices, count), strict=True))
    filled = generator(POINTS, empty_mean=True)[0]
    assert torch.equal(filled, torch.stack([voxels[0], POINTS[2].expand(2, 4)]))
    assert ids.dtype is torch.int64
    assert generator.generate_voxel_with_id(POINTS[:0])[3].shape == (0,)
    assert generator.generate_voxel_with_id(POINTS[4:5])[3].tolist() == [-1]
    with pytest.raises(ValueError, match=r"pc must have shape \(P, 4\), got \(6, 3\)"):
        generator(POINTS[:, :3])
    with pytest.raises(ValueError, match="must be three and six numbers"):
        sparse.PointToVoxel([0.5, 0.5], [0, 0, 1, 1], 4, 2, 2)


def test_many_points_find_their_voxels() -> None:
    points = torch.rand(5000, 5, generator=torch.Generator().manual_seed(0)) * 1.1
    generator = sparse.PointToVoxel([0.1, 0.05, 0.2], [0, 0, 0, 1, 1, 1], 5, 10**6, 3)
    _, indices, _, ids = generator.generate_voxel_with_id(points)
    place = ops.voxel_ids(points, [0.1, 0.05, 0.2], [0, 0, 0, 1, 1, 1])[:, 1:]
    assert torch.equal(torch.where(ids[:, None] >= 0, indices[ids.clamp(min=0)], -1), place)
    found = torch.randn(len(indices), 3, requires_grad=True)
    gathered = sparse.gather_features_by_pc_voxel_id(found, ids, -5)
    expected = torch.where(ids[:, None] >= 0, found[ids.clamp(min=0)], torch.tensor(-5.0))
    assert torch.equal(gathered, expected)
    assert gathered.requires_grad


def test_point_to_voxel_of_utils() -> None:
    names = ("vsize_xyz", "coors_range_xyz", "num_point_features", "max_num_voxels", "max_num_points_per_voxel")
    arguments: Any = dict(zip(names, ([0.5] * 3, [0, 0, 0, 1, 1, 1], 4, 10, 2), strict=True))
    generator = sparse.utils.Point2VoxelCPU3d(**arguments)
    expected = sparse.PointToVoxel(**arguments)(POINTS)
    for points in (POINTS, POINTS.numpy(), POINTS.double().numpy()):
        result = generator.point_to_voxel(points)
        assert all((a.numpy() == b.numpy()).all() for a, b in zip(result, expected, strict=True))
    mean = generator.point_to_voxel_empty_mean(POINTS)[0]
    assert torch.equal(mean, sparse.PointToVoxel(**arguments)(POINTS, empty_mean=True)[0])


def test_hash_table() -> None:
    table = sparse.hash.HashTable(torch.device("cpu"), torch.int32, torch.int64)

    def ints(*values: int) -> Tensor:
        return torch.tensor(values, dtype=torch.int32)

    assert table.query(ints(1))[1].tolist() == [True]
    table.insert(ints(5, 3, 7, 3), torch.tensor([1, 2, 3, 4]))
    table.insert(ints(7, 9))
    values, missing = table.query(ints(3, 4, 5, 7, 9))
    assert values.tolist() == [4, 0, 1, 0, 0]
    assert missing.tolist() == [False, True, False, False, False]
    assert table.insert_exist_keys(ints(9, 4), torch.tensor([8, 8])).tolist() == [0, 1]
    keys, values, count = table.items()
    assert (keys.tolist(), values.tolist(), count.tolist()) == ([3, 5, 7, 9], [4, 1, 0, 8], [4])
    assert table.assign_arange_().tolist() == [4]
    assert table.query(ints(9))[0].tolist() == [3]


def test_the_example_of_the_backbones_is_no_trivial_one() -> None:
    x = example(sparse)
    assert len(x.indices) == 2 * 40 * 36
    counts = sparse.SubMConv3d(4, 4, 3, indice_key="a")(x).indice_dict["a"].indice_pair_num
    assert (counts > 500).sum() > 20
