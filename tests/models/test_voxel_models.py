"""Networks on voxels: the sparse ones against whole grids in plain torch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from dense_twin import Grid, rows, run, voxel_means
from torch import Tensor, nn

from fastcv.models.pointcloud import OctNet, SECONDBackbone, SparseUNet, SparseVoxNet, VoxNet
from fastcv.sparse import SparseConvTensor

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
FORMS = pytest.mark.parametrize(  # in float32, a batch norm in training over few rows makes much of rounding
    ("train", "dtype"), [(False, torch.float32), (False, torch.float64), (True, torch.float64)]
)
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}


def clouds(count: int, points: int, columns: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    """Points on ellipsoids."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, points, columns, generator=generator)
    x[:, :, :3] = F.normalize(x[:, :, :3], dim=2) * (0.3 + 0.65 * torch.rand(count, 1, 3, generator=generator))
    return x.to(dtype)


def spread_statistics(model: nn.Module) -> None:
    """Give batch norms statistics that are not those of a new model."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)


def assert_near(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) <= TOLERANCE[ours.dtype] * max(1.0, float(theirs.abs().max()))


def compare(model: nn.Module, ours: Callable[[], Tensor], twin: Callable[[], Tensor]) -> None:
    """Values, and the gradients of all parameters."""
    found = []
    for function in (ours, twin):
        model.zero_grad()
        output = function()
        (output * torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)).sum().backward()
        found.append([output.detach(), *(p.grad.clone() for p in model.parameters())])
    for mine, theirs in zip(*found, strict=True):
        assert_near(mine, theirs)


def voxnet_twin(model: VoxNet, points: Tensor) -> Tensor:
    """The network after the paper, its grid too, in plain torch."""
    size = (model.range[3] - model.range[0]) / model.grid
    place = ((points[..., :3] - model.range[0]) / size).floor().long()
    inside = ((place >= 0) & (place < model.grid)).all(-1)
    grid = points.new_zeros(len(points), 1, *[model.grid] * 3)
    batch = torch.arange(len(points))[:, None].expand(inside.shape)[inside]
    x, y, z = place[inside].unbind(1)
    grid[batch, 0, z, y, x] = 1
    weights = dict(model.named_parameters())
    h = F.leaky_relu(F.conv3d(grid, weights["conv1.weight"], weights["conv1.bias"], stride=2), 0.1)
    h = F.leaky_relu(F.conv3d(h, weights["conv2.weight"], weights["conv2.bias"]), 0.1)
    h = F.max_pool3d(h, 2).flatten(1)
    h = F.relu(F.linear(h, weights["fc1.weight"], weights["fc1.bias"]))
    return F.linear(h, weights["fc2.weight"], weights["fc2.bias"])


@DTYPES
@pytest.mark.parametrize("build", [VoxNet, SparseVoxNet])
@pytest.mark.parametrize("grid", [32, 19])
def test_voxnet(build: type[VoxNet], grid: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = build(7, grid=grid).to(dtype).eval()
    for bias in (model.conv1.bias, model.conv2.bias):  # empty space counts
        nn.init.uniform_(bias, -1, 1)
    points = torch.cat([clouds(2, 300, 3, dtype), clouds(1, 300, 3, dtype) * 0.3 + 0.9])  # the last is cut off
    compare(model, lambda: model(points), lambda: voxnet_twin(model, points))


def test_voxnet_has_its_parameters_and_dropout() -> None:
    assert sum(p.numel() for p in VoxNet().parameters()) == 921_736
    assert sum(p.numel() for p in SparseVoxNet().parameters()) == 921_736
    for build in (VoxNet, SparseVoxNet):
        model, points = build(5).train(), clouds(2, 100)
        assert not torch.equal(model(points), model(points))
        assert torch.equal(model.eval()(points), model(points))


def test_a_cloud_outside_the_grid_is_an_empty_grid() -> None:
    torch.manual_seed(0)
    dense, sparse = VoxNet(5).eval(), SparseVoxNet(5).eval()
    sparse.load_state_dict(dense.state_dict())
    points = torch.full((2, 10, 3), 5.0)
    assert not dense.occupancy(points).any()
    torch.testing.assert_close(sparse(points), dense(points))


def block_twin(block: nn.Module, grid: Grid) -> Grid:
    x = run(block.bn1, run(block.conv1, grid))
    x = run(block.bn2, run(block.conv2, x.replace(x.x.relu())))
    return x.replace((x.x + rows(grid, block.project).x).relu())


def unet_twin(model: SparseUNet, points: Tensor) -> Tensor:
    """Every level as a whole grid."""
    low, size = points.new_tensor(model.range[:3]), points.new_tensor(model.voxel_size)
    points = points if model.height is None else torch.cat([points, points[..., 2:3] / model.height], -1)
    x, place = voxel_means(points, low, size, model.cells)
    x = run(model.stem, x)
    skipped = []
    for level, blocks in enumerate(model.encoder):
        for block in blocks._modules.values():
            x = block_twin(block, x)
        if level < len(model.down):
            skipped.append(x)
            x = run(model.down[level], x)
    for level in reversed(range(len(model.up))):
        x = run(model.up[level], x)
        x = x._replace(x=torch.cat([x.x, skipped[level].x], 1))
        for block in model.decoder[level]._modules.values():
            x = block_twin(block, x)
    b, z, y, x_place = place.unbind(-1)
    return rows(x, model.head).x[b, :, z, y, x_place]


@FORMS
def test_sparse_unet(train: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = SparseUNet(4, (0.2, 0.25, 0.3), [-1, -1, -1, 1, 1, 1], 4, (4, 6, 8), blocks=2, height=2.0).to(dtype)
    spread_statistics(model)
    model.train(train)
    points = clouds(2, 200, 4, dtype)
    compare(model, lambda: model(points), lambda: unet_twin(model, points))


def test_sparse_unet_takes_clouds_of_different_sizes() -> None:
    torch.manual_seed(0)
    model = SparseUNet(3, 0.2, [-1, -1, -1, 1, 1, 1], channels=(4, 8)).eval()
    first, second = clouds(2, 90)
    second = second[:40]
    offsets = torch.tensor([0, 90, 130])
    both = model(torch.cat([first, second]), offsets)
    torch.testing.assert_close(both, torch.cat([model(first), model(second)]))
    for mine, theirs in zip(model([first, second]), (both[:90], both[90:]), strict=True):  # as the trainer has them
        assert torch.equal(mine, theirs)
    far = torch.full((3, 3), 9.0)
    assert torch.equal(model(far), torch.zeros(3, 3))  # outside of the grid
    assert torch.equal(model(torch.cat([first, far]))[90:], torch.zeros(3, 3))


@DTYPES
def test_second(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = SECONDBackbone(4, (0.1, 0.1, 0.05), (-1.0, -1.2, -1.0, 1.0, 1.2, 1.0), 50).to(dtype).eval()
    spread_statistics(model)
    points = clouds(2, 150, 4, dtype)

    def twin() -> Tensor:
        shifted = torch.cat([torch.zeros_like(points[..., :3]), points], -1)
        low, size = points.new_tensor(model.range[:3]), points.new_tensor(model.voxel_size)
        x, _ = voxel_means(torch.cat([points[..., :3], shifted[..., 3:]], -1), low, size, model.cells)
        x = x._replace(x=x.x[:, 3:])
        for stage in (model.conv_input, model.conv1, model.conv2, model.conv3, model.conv4, model.conv_out):
            x = run(stage, x)
        return x.x.flatten(1, 2)

    compare(model, lambda: model(points), twin)
    assert [stage.spatial_shape for stage in model.stages(model.voxels(points))] == [
        [41, 24, 20],
        [21, 12, 10],
        [11, 6, 5],
        [5, 3, 3],
    ]
    one = model(points[1])
    torch.testing.assert_close(one[0], model(points)[1], rtol=1e-4, atol=1e-5)


def test_second_has_the_names_of_openpcdet() -> None:
    keys = SECONDBackbone().state_dict().keys()
    for key in ("conv_input.0", "conv1.0.0", "conv2.0.1", "conv2.1.0", "conv3.2.0", "conv4.0.0", "conv_out.1"):
        assert f"{key}.weight" in keys
    assert SECONDBackbone().cells == [41, 1600, 1408]


@FORMS
def test_octnet(train: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = OctNet(5, depth=4, in_channels=4, dropout=0.0).to(dtype)
    spread_statistics(model)
    model.train(train)
    points = clouds(3, 200, 4, dtype)

    def twin() -> Tensor:
        low = points.new_tensor(model.range[:3])
        x, _ = voxel_means(F.pad(points, (0, 1), value=1.0), low, points.new_tensor([2.2 / 16] * 3), [16] * 3)
        for level in model.levels:
            x = run(level, x)
        bn = model.bn1
        y = F.linear(x.x.flatten(1), model.fc1.weight)
        y = F.batch_norm(y, bn.running_mean.clone(), bn.running_var.clone(), bn.weight, bn.bias, train, 0.1, bn.eps)
        return model.fc2(y.relu())

    compare(model, lambda: model(points), twin)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="grid must be at least 11, so that pooling leaves a voxel, got 10"):
        VoxNet(grid=10)
    with pytest.raises(ValueError, match="extent must be positive and finite, got -1"):
        VoxNet(extent=-1)
    with pytest.raises(ValueError, match=r"points must have shape \(B, N, 3\), got \(5, 2\)"):
        VoxNet()(torch.zeros(5, 2))
    with pytest.raises(ValueError, match=r"grid must have shape \(B, 32, 32, 32\), got \(1, 1, 32, 32, 32\)"):
        SparseVoxNet().classify_grid(torch.zeros(1, 1, 32, 32, 32))
    with pytest.raises(ValueError, match="depth must be 3 to 10, got 2"):
        OctNet(depth=2)
    with pytest.raises(ValueError, match=r"points must have shape \(B, N, 4\), got \(1, 5, 3\)"):
        SECONDBackbone().voxels(torch.zeros(5, 3))
    unet = SparseUNet(3, 0.2, [-1, -1, -1, 1, 1, 1], channels=(4, 8))
    for points, text in (
        (torch.zeros(0, 3), "points must have at least one point per cloud"),
        (torch.full((4, 3), torch.inf), "points must be finite, got .*inf"),
        (torch.zeros(4, 5), r"points must have shape \(B, N, 3\), got \(1, 4, 5\)"),
    ):
        with pytest.raises(ValueError, match=text):
            unet(points)
    with pytest.raises(ValueError, match="height must be positive, got 0"):
        SparseUNet(3, 0.2, [-1, -1, -1, 1, 1, 1], height=0)


def test_one_voxel_trains() -> None:
    """A batch norm in training wants two rows; with one voxel its running statistics serve."""
    model = SparseUNet(3, 0.2, [-1, -1, -1, 1, 1, 1], channels=(4, 8)).train()
    logits = model(torch.zeros(1, 4, 3))
    assert logits.shape == (1, 4, 3)
    assert logits.isfinite().all()
    assert isinstance(OctNet(3).octants(torch.zeros(1, 4, 3)), SparseConvTensor)
