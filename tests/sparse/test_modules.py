"""The sparse tensor and the modules as a program meets them: names, checkpoints, sharing of maps, errors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastcv import sparse

SHAPE = (5, 6, 7)


def sites_of(count: int = 40) -> Tensor:
    cells = torch.randperm(2 * 5 * 6 * 7, generator=torch.Generator().manual_seed(0))[:count]
    return torch.stack([cells // 210, cells // 42 % 5, cells // 7 % 6, cells % 7], 1).int()


def example(channels: int = 3, count: int = 40) -> sparse.SparseConvTensor:
    return sparse.SparseConvTensor(torch.randn(count, channels), sites_of(count), SHAPE, 2)


def test_dense_and_back() -> None:
    x = example()
    leaf = x.features.clone().requires_grad_()
    x = x.replace_feature(leaf)
    grid = x.dense()
    assert grid.shape == (2, 3, *SHAPE)
    assert grid.is_contiguous()
    assert torch.equal(grid, x.dense(channels_first=False).movedim(-1, 1))
    for row, (b, z, y, x_) in enumerate(x.indices.tolist()):
        assert torch.equal(grid[b, :, z, y, x_], leaf[row])
    assert torch.count_nonzero(grid) == 40 * 3
    weight = torch.randn_like(grid)
    (gradient,) = torch.autograd.grad((grid * weight).sum(), leaf)
    assert torch.equal(gradient, weight.movedim(1, -1)[x.indices.long().unbind(1)])
    back = sparse.SparseConvTensor.from_dense(grid.movedim(1, -1))
    assert back.spatial_shape == list(SHAPE)
    assert torch.equal(back.dense(), grid)
    assert sparse.ToDense()(back).requires_grad


def test_tensor() -> None:
    x = example()
    assert repr(x) == "SparseConvTensor(features=(40, 3), spatial_shape=[5, 6, 7], batch_size=2)"
    assert x.spatial_size == 210
    assert torch.equal(x.minus().features, -x.features)
    assert torch.equal((x + x).features, 2 * x.features)
    assert torch.equal((x + 1.0).features, x.features + 1)
    with pytest.raises(AttributeError):
        x.features = x.features  # type: ignore[misc]
    few = x.select_by_index(torch.arange(40) < 5)
    assert few.features.shape == (5, 3)
    assert torch.equal(few.indices, x.indices[:5])
    with pytest.raises(ValueError, match="only where their sites are the same"):
        x + few
    with pytest.raises(ValueError, match="only where their sites are the same"):
        x + sparse.SparseConvTensor(x.features, x.indices.flip(0), SHAPE, 2)


BAD_TENSORS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"features": [1]}, TypeError, "features must be a torch.Tensor, got list"),
    ({"features": torch.zeros(3)}, ValueError, r"features must have two axes, got shape \(3,\)"),
    ({"features": torch.zeros(4, 2)}, ValueError, "4 rows, 3 sites"),
    ({"features": torch.zeros(3, 2).long()}, TypeError, "floating dtype, got int64"),
    ({"indices": torch.zeros(3, 4)}, TypeError, "indices must be int32, got float32"),
    ({"indices": torch.zeros(3, 3).int()}, ValueError, r"indices must have shape \(N, 4\)"),
    ({"indices": torch.zeros(3, 4, device="meta").int()}, ValueError, "indices must be on the device of features"),
    ({"spatial_shape": (4, 0, 4)}, ValueError, "spatial_shape must be positive"),
    ({"spatial_shape": (4,) * 5}, ValueError, "one to four sizes"),
    ({"batch_size": -1}, ValueError, "batch_size must not be negative, got -1"),
]


@pytest.mark.parametrize(("changed", "error", "message"), BAD_TENSORS)
def test_bad_tensors(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    good = {"features": torch.zeros(3, 2), "indices": torch.zeros(3, 4).int(), "spatial_shape": SHAPE, "batch_size": 1}
    with pytest.raises(error, match=message):
        sparse.SparseConvTensor(**{**good, **changed})


@pytest.mark.parametrize("site", [[0, 5, 0, 0], [0, 0, -1, 0], [2, 0, 0, 0]])
def test_dense_looks_at_the_sites(site: list[int]) -> None:
    x = sparse.SparseConvTensor(torch.ones(1, 1), torch.tensor([site]).int(), SHAPE, 2)
    with pytest.raises(ValueError, match="indices must lie in"):
        x.dense()


def test_submanifold_layers_share_a_map() -> None:
    first, second = (sparse.SubMConv3d(3, 3, 3, indice_key="a") for _ in range(2))
    x = example()
    y = first(x)
    assert not x.indice_dict
    assert second(y).indice_dict["a"] is y.indice_dict["a"]
    assert y.indices is x.indices
    plain = sparse.SubMConv3d(3, 3, 3)
    plain.load_state_dict(second.state_dict())
    assert torch.equal(second(y).features, plain(y).features)
    assert not plain(x).indice_dict


def test_the_reverse_of_a_mirrored_map_is_made_when_it_is_wanted() -> None:
    layer, x = sparse.SubMConv3d(3, 3, 3, indice_key="a"), example()
    y = layer(x)
    links = y.indice_dict["a"]
    assert links.stored_reverse is None
    leaf = y.features.detach().requires_grad_()
    layer(y.replace_feature(leaf)).features.sum().backward()
    assert torch.equal(links.reverse, links.neighbours.flip(0))
    assert links.stored_reverse is links.reverse
    gradient, leaf.grad = leaf.grad, None
    layer(x.replace_feature(leaf)).features.sum().backward()
    assert torch.equal(leaf.grad, gradient)
    assert sparse.SubMConv3d(3, 3, 2, indice_key="b")(x).indice_dict["b"].stored_reverse is not None


def test_keys_that_do_not_fit() -> None:
    y = sparse.SubMConv3d(3, 3, 3, indice_key="a")(example())
    with pytest.raises(ValueError, match="must have the same kernel"):
        sparse.SubMConv3d(3, 3, 2, indice_key="a")(y)
    with pytest.raises(ValueError, match="'a' is taken"):
        sparse.SparseConv3d(3, 3, 3, indice_key="a")(y)
    with pytest.raises(ValueError, match="'a' names a submanifold layer"):
        sparse.SparseInverseConv3d(3, 3, 3, "a")(y)
    with pytest.raises(ValueError, match="none has it"):
        sparse.SparseInverseConv3d(3, 3, 3, "b")(y)
    few = sparse.SparseConvTensor(y.features[:4], y.indices[:4], SHAPE, 2, indice_dict=y.indice_dict)
    with pytest.raises(ValueError, match="must have the same sites"):
        sparse.SubMConv3d(3, 3, 3, indice_key="a")(few)
    z = sparse.SparseConv3d(3, 3, 3, 2, 1, indice_key="b")(y)
    with pytest.raises(ValueError, match=r"kernel_size must be that of the layer 'b'.*\[3, 3, 3\], got \[2, 2, 2\]"):
        sparse.SparseInverseConv3d(3, 3, 2, "b")(z)
    with pytest.raises(ValueError, match="must have the sites that the layer 'b' left"):
        sparse.SparseInverseConv3d(3, 3, 3, "b")(sparse.SparseMaxPool3d(2)(z))


BAD_LAYERS: list[tuple[Any, type[Exception], str]] = [
    (lambda: sparse.SparseConv3d(3, 4, (3, 3)), TypeError, r"kernel_size must be an int or three ints, got \(3, 3\)"),
    (lambda: sparse.SparseConv3d(3, 4, 0), ValueError, "kernel_size must be positive, got 0"),
    (lambda: sparse.SparseConv3d(3, 4, "3"), TypeError, "kernel_size must be an int or three ints, got '3'"),
    (lambda: sparse.SparseConv3d(3, 4, 3, groups=2), ValueError, r"groups must divide in_channels \(3\)"),
    (lambda: sparse.SparseConv3d(0, 4, 3), ValueError, "must be positive, got 0 and 4"),
    (lambda: sparse.SparseConv3d(3, 4, 3, output_padding=1), ValueError, "output_padding is for transposed"),
    (lambda: sparse.SparseMaxPool3d(2, -1), ValueError, "stride must be positive, got -1"),
    (lambda: sparse.SparseConv3d(3, 4, 3)(torch.zeros(3)), TypeError, "input must be a SparseConvTensor"),
    (lambda: sparse.SparseConv2d(3, 4, 3)(example()), ValueError, "input must have 2 spatial axes"),
    (lambda: sparse.SparseConv3d(5, 4, 3)(example()), ValueError, "input must have 5 channels, got 3"),
    (lambda: sparse.SparseConv3d(3, 4, 9)(example()), ValueError, "spatial_shape must leave an output"),
    (lambda: sparse.SparseMaxPool3d(9)(example()), ValueError, "spatial_shape must leave an output"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD_LAYERS)
def test_bad_layers(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_parameters_and_checkpoints() -> None:
    layer = sparse.SparseConv3d(4, 6, (3, 2, 1), groups=2)
    assert list(layer.state_dict()) == ["weight", "bias"]
    assert layer.weight.shape == (6, 3, 2, 1, 2)
    assert layer.weight.abs().max() <= 1 / (2 * 6) ** 0.5
    assert sparse.SubMConv2d(4, 6, 3, bias=False).bias is None
    recording = sparse.SparseConv3d(3, 6, 3, record_voxel_count=True)
    y = recording(example())
    assert recording.get_max_num_voxels() == y.features.shape[0]
    recording.load_state_dict(sparse.SparseConv3d(3, 6, 3).state_dict())  # without the count
    assert recording.get_max_num_voxels() == y.features.shape[0]


LAYOUTS = {"KRSC": (0, 1, 2, 3, 4), "RSKC": (1, 2, 3, 0, 4), "RSCK": (1, 2, 3, 4, 0)}  # from that of the layer


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [(3, 6), (8, 8)])
def test_layouts_of_checkpoints(monkeypatch: pytest.MonkeyPatch, layout: str, channels: tuple[int, int]) -> None:
    """Found from the shape, or said; where the shape is that of two layouts, an error that names both."""
    new, old = sparse.SubMConv3d(*channels, 3), sparse.SubMConv3d(*channels, 3)
    state = {"0.weight": new.weight.detach().permute(LAYOUTS[layout]), "0.bias": new.bias}
    before = old.weight.clone()
    if channels == (8, 8) and layout != "KRSC":
        with pytest.raises(RuntimeError, match=r"0.weight of shape \(3, 3, 3, 8, 8\) may be RSKC or RSCK: set the"):
            sparse.SparseSequential(old).load_state_dict(state)
        assert torch.equal(old.weight, before)
    else:
        sparse.SparseSequential(old).load_state_dict(state)
        assert torch.equal(old.weight, new.weight)
    old.load_state_dict({"weight": before, "bias": new.bias})
    monkeypatch.setattr("fastcv.sparse.constants.SAVED_WEIGHT_LAYOUT", layout)
    sparse.SparseSequential(old).load_state_dict(state)
    assert torch.equal(old.weight, new.weight)
    monkeypatch.setattr("fastcv.sparse.constants.SAVED_WEIGHT_LAYOUT", "KRSC")
    if layout != "KRSC":
        with pytest.raises(RuntimeError, match=r"size mismatch for 0\.weight"):
            sparse.SparseSequential(old).load_state_dict(state)


def test_layout_from_the_environment(in_new_process: Callable[[str], str]) -> None:
    script = """
        import os
        os.environ["SPCONV_SAVED_WEIGHT_LAYOUT"] = "RSCK"
        import torch
        from fastcv import sparse
        layer, weight = sparse.SubMConv3d(8, 8, 3, bias=False), torch.randn(8, 3, 3, 3, 8)
        layer.load_state_dict({"weight": weight.permute(1, 2, 3, 4, 0)})
        assert torch.equal(layer.weight, weight)
        os.environ["SPCONV_SAVED_WEIGHT_LAYOUT"] = "KCRS"
        import importlib
        try:
            importlib.reload(sparse.constants)
        except ValueError as error:
            assert str(error) == "SPCONV_SAVED_WEIGHT_LAYOUT must be KRSC, RSKC or RSCK, got 'KCRS'"
        else:
            raise AssertionError
    """
    in_new_process(script)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("name", ["SubMConv3d", "SparseConv3d", "SparseConvTranspose3d", "SparseInverseConv3d"])
def test_kernels_of_one_element(name: str, groups: int) -> None:
    """They read the numbers of the weight as (C_in, C_out), in every layout, and leave keys alone."""
    options = {} if name == "SparseInverseConv3d" else {"padding": 1} if name == "SubMConv3d" else {"stride": 1}
    layer = getattr(sparse, name)(4, 6, 1, indice_key="a", groups=groups, **options)
    assert layer.conv1x1
    x = example(4)
    y = layer(x)
    parts = zip(x.features.chunk(groups, 1), layer.weight.chunk(groups), strict=True)
    expected = torch.cat([part @ weight.reshape(4 // groups, 6 // groups) for part, weight in parts], 1) + layer.bias
    torch.testing.assert_close(y.features, expected)
    assert y.indices is x.indices
    assert y.spatial_shape == x.spatial_shape
    assert not y.indice_dict
    weight = layer.weight.detach().clone()
    for shape in ((6, 1, 1, 1, 4 // groups), (1, 1, 1, 4 // groups, 6), (1, 1, 1, 6, 4 // groups)):
        layer.reset_parameters()
        layer.load_state_dict({"weight": weight.reshape(shape), "bias": layer.bias})
        assert torch.equal(layer.weight, weight)


def test_what_has_one_element_and_moves_is_no_such_kernel() -> None:
    for options in ({"stride": 2}, {"padding": 1}):
        layer = sparse.SparseConv3d(3, 6, 1, bias=False, indice_key="a", **options)
        assert not layer.conv1x1
        y = layer(example())
        assert "a" in y.indice_dict
        x = example()
        rows = y.indice_dict["a"].neighbours[0].long()
        torch.testing.assert_close(layer(x).features, x.features[rows] @ layer.weight.reshape(6, 3).T)


def test_a_replaced_loading_gets_the_weights_as_they_were_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """As mmdet3d does it, which permutes the weights of its first version itself."""
    seen = []

    def load(self: Any, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name, parameter in self._parameters.items():
            seen.append(state_dict[prefix + name].shape)
            order = (-1, *range(parameter.dim() - 1))
            with torch.no_grad():
                parameter.copy_(state_dict[prefix + name].permute(order))

    monkeypatch.setattr(sparse.SparseModule, "_load_from_state_dict", load)
    new, old = sparse.SubMConv3d(3, 6, 3), sparse.SubMConv3d(3, 6, 3)
    old.load_state_dict({"weight": new.weight.detach().permute(LAYOUTS["RSCK"]), "bias": new.bias})
    assert seen == [(3, 3, 3, 3, 6), (6,)]
    assert torch.equal(old.weight, new.weight)


def test_checkpoints_of_the_first_spconv() -> None:
    """Their weights are (*kernel, C_in, C_out)."""
    new, old = sparse.SubMConv3d(3, 6, 3), sparse.SubMConv3d(3, 6, 3)
    state = {"weight": new.weight.detach().permute(1, 2, 3, 4, 0).contiguous(), "bias": new.bias}
    old.load_state_dict(state)
    assert torch.equal(old.weight, new.weight)
    assert state["weight"].shape == (3, 3, 3, 3, 6)
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        old.load_state_dict({**state, "weight": torch.zeros(3, 3, 3, 3, 5)})


def test_repr() -> None:
    net = sparse.SparseSequential(
        sparse.SubMConv3d(3, 8, 3, indice_key="a", bias=False),
        sparse.SparseConvTranspose2d(8, 8, 2, 2, 1, output_padding=1, groups=2),
        sparse.SparseMaxPool3d(2, padding=1),
    )
    assert repr(net) == (
        "SparseSequential(\n"
        "  (0): SubMConv3d(3, 8, kernel_size=[3, 3, 3], stride=[1, 1, 1], bias=False, indice_key='a')\n"
        "  (1): SparseConvTranspose2d(8, 8, kernel_size=[2, 2], stride=[2, 2], padding=[1, 1], "
        "output_padding=[1, 1], groups=2)\n"
        "  (2): SparseMaxPool3d(kernel_size=[2, 2, 2], stride=[2, 2, 2], padding=[1, 1, 1])\n"
        ")"
    )


def test_sequential() -> None:
    named = sparse.SparseSequential(OrderedDict(conv=sparse.SubMConv3d(3, 4, 3), act=nn.ReLU()), norm=nn.BatchNorm1d(4))
    assert [name for name, _ in named.named_children()] == ["conv", "act", "norm"]
    named.add(nn.Linear(4, 2))
    assert len(named) == 4
    assert isinstance(named[-1], nn.Linear)
    with pytest.raises(IndexError, match="index 4 is out of range"):
        named[4]
    with pytest.raises(ValueError, match="'act' exists already"):
        named.add(nn.ReLU(), "act")
    x = example()
    y = named(x)
    expected = named[3](named[2](named[0](x).features.relu()))
    assert y.features.shape == (40, 2)
    torch.testing.assert_close(y.features, expected)
    dense = sparse.SparseSequential(sparse.ToDense(), nn.Conv3d(3, 2, 1))(x)
    assert dense.shape == (2, 2, *SHAPE)


def test_batch_norm_of_few_sites() -> None:
    norm = sparse.SparseBatchNorm(3)
    norm(example())
    mean, count = norm.running_mean.clone(), int(norm.num_batches_tracked)
    for rows in (0, 1):
        x = example(count=rows)
        expected = norm.eval()(x).features
        torch.testing.assert_close(norm.train()(x).features, expected)
        torch.testing.assert_close(sparse.SparseSequential(norm)(x).features, expected)
    assert torch.equal(norm.running_mean, mean)
    assert norm.num_batches_tracked == count
    x = example()
    torch.testing.assert_close(norm(x).features, nn.BatchNorm1d(3)(x.features))
    assert torch.equal(sparse.SparseReLU()(x).features, x.features.relu())
    assert sparse.SparseIdentity()(x) is x
