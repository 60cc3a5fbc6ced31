"""Darknet's files: read, written with the same bytes, and refused in one line; networks of any configuration."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastcv.models.yolo import (
    DarknetNetwork,
    DarknetWeights,
    WeightsHeader,
    make_config,
    parse_config,
    read_config,
    read_weights,
    write_config,
    write_weights,
    yolov3_tiny,
)

FOLDER = os.environ.get("FASTCV_YOLOV3_TINY")
published = pytest.mark.skipif(
    FOLDER is None, reason="FASTCV_YOLOV3_TINY must name a folder with yolov3-tiny.cfg and yolov3-tiny.weights"
)
NET: tuple[str, dict[str, object]] = ("net", {"channels": 2, "height": 9, "width": 13})


def network(*sections: tuple[str, dict[str, object]]) -> DarknetNetwork:
    torch.manual_seed(0)
    made = DarknetNetwork(make_config([NET, *sections])).eval()
    for name, value in made.state_dict().items():
        if value.is_floating_point():  # statistics too, and variances above 0
            value.copy_(torch.rand(value.shape) if "running_var" in name else torch.randn(value.shape))
    return made


def run(made: DarknetNetwork) -> tuple[Tensor, Tensor]:
    images = torch.randn(2, 2, 9, 13, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        (result,) = made(images)
    assert tuple(result.shape[1:]) == made.shapes[-1]
    return images, result


def test_config_is_written_with_the_same_bytes(tmp_path: Path) -> None:
    data = (
        b"# any byte \xff\x85\r\n[network]\r\n width = 3 2\n;[yolo]\n\nwidth=64\n[conv]\nfilters= 4 \n\tsize=\t3\npad=1"
    )
    (tmp_path / "a.cfg").write_bytes(data)
    config = read_config(tmp_path / "a.cfg")
    assert [(s.name, dict(s.options), s.line) for s in config.sections] == [
        ("net", {"width": "32"}, 2),  # Darknet takes the first of two
        ("convolutional", {"filters": "4", "size": "3", "pad": "1"}, 7),
    ]
    write_config(tmp_path / "b.cfg", config)
    assert (tmp_path / "b.cfg").read_bytes() == data
    assert DarknetNetwork(config).shapes == [(4, 416, 32)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.cfg, line 1: must hold the section [net], got no section"),
        ("a=1", "x.cfg, line 1: a section such as [net] must come first, got 'a=1'"),
        ("[conv]", "x.cfg, line 1, [convolutional]: the first section must be [net], and no other"),
        ("[net]\n[net]", "x.cfg, line 2, [net]: the first section must be [net], and no other"),
        ("[net]\n[convolution]", "x.cfg, line 2: must be a section of Darknet, got '[convolution]'"),
        ("[net]\n[yolo", "x.cfg, line 2: must be a section of Darknet, got '[yolo'"),
        ("[net]\nwidth", "x.cfg, line 2, [net]: must be option=value, got 'width'"),
        ("[net]\nwidth=", "x.cfg, line 2, [net]: must be option=value, got 'width='"),
        ("[net]\nwidth=4x", "x.cfg, line 2, [net]: width must be an integer, got '4x'"),
        ("[net]\nwidth=0", "x.cfg, line 2, [net]: width must be from 1 to 65536, got 0"),
        ("[net]\n#\n", "x.cfg, line 1, [net]: must be followed by layers"),
        ("[net]\n[gru]", "x.cfg, line 2, [gru]: a network cannot have this section, only connected, convolutional"),
        ("[net]\n[conv]\nactivation=no", "x.cfg, line 3, [convolutional]: activation must be one of linear, leaky"),
        ("[net]\n[conv]\nsize=500", "x.cfg, line 3, [convolutional]: size must be from 1 to 255, got 500"),
        ("[net]\nwidth=2\n[conv]\nsize=3", "line 4, [convolutional]: size must be at most the padded map's, (416, 2)"),
        ("[net]\n[conv]\ngroups=2", "line 3, [convolutional]: groups must divide 3 and 1 channels, got 2"),
        ("[net]\n[conv]\nxnor=1", "line 3, [convolutional]: xnor is not supported, got 1"),
        ("[net]\n[maxpool]\nsize=2\npadding=3", "line 4, [maxpool]: padding must make windows that meet the map"),
        ("[net]\n[route]", "line 2, [route]: layers must be given"),
        ("[net]\n[route]\nlayers=-1", "line 3, [route]: layers must name layers before layer 0, got -1"),
        ("[net]\n[maxpool]\n[route]\nlayers=0,", "line 4, [route]: layers must be an integer, got ''"),
        ("[net]\n[maxpool]\n[maxpool]\nstride=2\n[route]\nlayers=0,1", "line 6, [route]: layers must have maps of one"),
        ("[net]\n[conv]\n[conv]\nfilters=2\n[shortcut]\nfrom=0", "line 6, [shortcut]: from must name layers of the"),
        ("[net]\n[yolo]\nanchors=1,nan", "line 3, [yolo]: anchors must be a number, got 'nan'"),
        ("[net]\n[yolo]\nanchors=1,1e999", "line 3, [yolo]: anchors must be a number, got '1e999'"),
        ("[net]\n[yolo]\nanchors=1", "line 3, [yolo]: anchors must be 2 positive numbers, two per num, got [1.0]"),
        ("[net]\n[yolo]\nanchors=1,1\nmask=1", "line 4, [yolo]: mask must be from 0 to 0, got 1"),
        ("[net]\n[yolo]\nanchors=1,1", "line 2, [yolo]: must follow a layer of 25 = 1 × (5 + 20) channels, got 3"),
        ("[net]\n[detection]\ncoords=4", "line 2, [detection]: must follow a layer of 294 numbers, got 519168"),
        ("[net]\n[region]\ntree=9k", "line 3, [region]: tree is not supported"),
        ("[net]\nchannels=6\n[yolo]\nanchors=1,1\nclasses=1\n[conv]", "line 6, [convolutional]: must not take the"),
        ("[net]\n[conv]\nfilters=65536", "[convolutional]: the result must have at most 1073741824 numbers"),
        ("[net]\n[connected]\noutput=9999999", "line 2, [connected]: must have at most 1073741824 weights"),
    ],
)
def test_bad_config(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - compared below
        DarknetNetwork(parse_config(text, "x.cfg"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no config"):
        read_config(tmp_path / "a.cfg")
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        read_weights(tmp_path / "a.weights")
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*a\.weights$"):
        yolov3_tiny(tmp_path / "a.weights")
    with pytest.raises(FileNotFoundError, match=r"yolov3-tiny\.weights\. Nothing is downloaded\. .*pjreddie\.com"):
        yolov3_tiny(tmp_path / "yolov3-tiny.weights")


@pytest.mark.parametrize(
    ("header", "width"),
    [
        (WeightsHeader(0, 1, 0, 7), 4),
        (WeightsHeader(0, 2, 0, 1 << 40), 8),
        (WeightsHeader(0, 2, 5, (1 << 64) - 1), 8),
        (WeightsHeader(1, 0, 0, 7), 8),
        (WeightsHeader(0, 1001, 0, 7), 4),
        (WeightsHeader(1000, 0, 0, -1), 4),
        (WeightsHeader(-1, 0, 0, -1), 4),
    ],
)
def test_weights_are_written_with_the_same_bytes(tmp_path: Path, header: WeightsHeader, width: int) -> None:
    """Not-a-numbers of any bits too. ``seen`` has 64 bits from version 0.2 on, but not in transposed files."""
    numbers = struct.pack("<5I", 0x3F800000, 0x7FC00001, 0xFF800000, 0x80000000, 1)
    seen = struct.pack("<q" if header.seen < 1 << 63 else "<Q", header.seen)[:width]
    data = struct.pack("<3i", header.major, header.minor, header.revision) + seen + numbers
    (tmp_path / "a.weights").write_bytes(data)
    weights = read_weights(tmp_path / "a.weights")
    assert weights.header == header
    assert weights.values[0] == 1
    write_weights(tmp_path / "b.weights", weights)
    assert (tmp_path / "b.weights").read_bytes() == data
    for length in (0, 11, 11 + width, len(data) - 1):
        (tmp_path / "c.weights").write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"c\.weights must (start with a header of|hold float32 numbers after) "):
            read_weights(tmp_path / "c.weights")


def test_a_header_that_does_not_fit_changes_no_file(tmp_path: Path) -> None:
    path = tmp_path / "a.weights"
    path.write_bytes(b"before")
    with pytest.raises(ValueError, match="header must hold integers that fit"):
        write_weights(path, DarknetWeights(torch.zeros(2), WeightsHeader(0, 1, 0, 1 << 40)))
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_order_of_numbers_and_values_of_a_convolution() -> None:
    """Biases, scales, means, variances, weights; against Darknet's formula."""
    made = network(("conv", {"batch_normalize": 1, "filters": 3, "size": 3, "pad": 1, "activation": "leaky"}))
    values = torch.rand(3 * 4 + 3 * 2 * 9, generator=torch.Generator().manual_seed(2))
    made.load_weights(DarknetWeights(values))
    bias, scale, mean, variance = values[:12].view(4, 3, 1, 1)
    images, result = run(made)
    wanted = F.conv2d(images, values[12:].view(3, 2, 3, 3), padding=1)
    wanted = (wanted - mean) / (variance.sqrt() + 1e-6) * scale + bias
    torch.testing.assert_close(result, torch.where(wanted > 0, wanted, wanted * 0.1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("header", "transposed"),
    [
        (WeightsHeader(), False),
        (WeightsHeader(1000, 1000), False),
        (WeightsHeader(0, 1001), True),
        (WeightsHeader(1001, 0), True),
    ],
)
@pytest.mark.parametrize("normalised", [0, 1])
def test_connected(tmp_path: Path, header: WeightsHeader, transposed: bool, normalised: int) -> None:
    """Biases, weights, and after them scales, means, variances; weights transposed where the version says so."""
    made = network(("connected", {"output": 5, "batch_normalize": normalised, "activation": "relu"}))
    inputs = 2 * 9 * 13
    values = torch.rand(5 + 5 * inputs + 15 * normalised, generator=torch.Generator().manual_seed(2))
    made.load_weights(DarknetWeights(values, header))
    images, result = run(made)
    weight = values[5 : 5 + 5 * inputs]
    weight = weight.view(inputs, 5).t() if transposed else weight.view(5, inputs)
    wanted = images.flatten(1) @ weight.t()
    if normalised:
        scale, mean, variance = values[-15:].view(3, 5)
        wanted = (wanted - mean) / (variance.sqrt() + 1e-6) * scale
    torch.testing.assert_close(result[..., 0, 0], (wanted + values[:5]).relu(), rtol=1e-4, atol=1e-4)
    made.save_weights(tmp_path / "a.weights")
    again = read_weights(tmp_path / "a.weights")
    assert torch.equal(again.values, values)
    assert again.header == header


def test_wrong_length_changes_nothing(tmp_path: Path) -> None:
    made = network(("conv", {"filters": 3, "size": 3}), ("conv", {"batch_normalize": 1, "filters": 2}))
    before = {name: value.clone() for name, value in made.state_dict().items()}
    needed = (3 + 54) + (8 + 6)
    for count, message in (
        (0, r"the config, line 6, \[convolutional\]: .*a\.weights must have 57 numbers for this layer, got 0"),
        (needed - 1, r"line 10, \[convolutional\]: .*a\.weights must have 14 numbers for this layer, got 13"),
        (needed + 2, r"line 10, \[convolutional\]: .*a\.weights must end here, with 71 numbers, got 73"),
    ):
        write_weights(tmp_path / "a.weights", DarknetWeights(torch.ones(count)))
        with pytest.raises(ValueError, match=message):
            made.load_weights(tmp_path / "a.weights")
        assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())
    with pytest.raises(ValueError, match="the network is on the device meta"):
        made.to("meta").load_weights(DarknetWeights(torch.ones(needed)))


@pytest.mark.parametrize("padding", [None, 0, 1, 2])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [2, 3, 5])
def test_maxpool_is_darknets(size: int, stride: int, padding: int | None) -> None:
    """Against Darknet's loop over windows, in which places beyond the map do not count."""
    options: dict[str, object] = {"size": size, "stride": stride}
    made = network(("maxpool", options if padding is None else {**options, "padding": padding}))
    images, result = run(made)
    total = size - 1 if padding is None else padding
    wanted = np.empty((2, 2, (9 + total - size) // stride + 1, (13 + total - size) // stride + 1), np.float32)
    for row in range(wanted.shape[2]):
        for column in range(wanted.shape[3]):
            top, left = row * stride - total // 2, column * stride - total // 2
            window = images[:, :, max(top, 0) : top + size, max(left, 0) : left + size]
            wanted[:, :, row, column] = window.amax((2, 3))
    assert torch.equal(result, torch.from_numpy(wanted))


def test_route_shortcut_and_upsample() -> None:
    route: Any = {"layers": "-1, 0"}
    conv: dict[str, object] = {"filters": 4, "activation": "linear"}
    made = network(("conv", conv), ("maxpool", {"size": 1}), ("route", route))
    _, result = run(made)
    assert torch.equal(result[:, :4], result[:, 4:])
    _, parts = run(network(("conv", conv), ("route", {"layers": 0, "groups": 2, "group_id": 1})))
    assert torch.equal(parts, result[:, 2:4])
    _, double = run(network(("conv", conv), ("dropout", {}), ("shortcut", {"from": -2, "activation": "leaky"})))
    torch.testing.assert_close(double, F.leaky_relu(2 * result[:, :4], 0.1))
    _, large = run(network(("conv", conv), ("upsample", {"stride": 2, "scale": 0.5})))
    assert torch.equal(large, result[:, :4].repeat_interleave(2, 2).repeat_interleave(2, 3) * 0.5)


WORDS = """
[net] [conv] [convolutional] [maxpool] [route] [shortcut] [upsample] [yolo] [region] [detection] [connected] [dropout]
[local] [reorg] [lstm] [ width=8 height=8 channels=6 channels=1 filters=6 filters=99999 size=2 size=3 size=1e3
stride=2 stride=-1 pad=1 padding=9 groups=2 group_id=1 activation=leaky activation=x batch_normalize=1 layers=-1
layers=0,1 from=-2 from=0 anchors=1,2 anchors=1,2,3,4 mask=0 num=2 classes=1 output=294 output=6 coords=4 side=1
# = a=b 1e9
"""
TEXTS = st.lists(st.sampled_from(WORDS.split()), max_size=30).map(
    lambda words: "\n".join(["[net]", "width=8", "height=8", *words])
)


@given(TEXTS | st.text())
@settings(max_examples=400, deadline=None)
def test_any_text_is_a_network_or_an_error_of_one_line(text: str) -> None:
    try:
        config = parse_config(text, "x.cfg")
        with torch.device("meta"):
            made = DarknetNetwork(config).eval()
            outputs = made(torch.empty(1, *made.input_shape))
    except ValueError as error:
        assert str(error).startswith("x.cfg, line ")  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert config.text == text
        shapes = [shape for layer, shape in zip(made.layers, made.shapes, strict=True) if hasattr(layer, "head")]
        assert [tuple(output.shape[1:]) for output in outputs] == (shapes or made.shapes[-1:])
        for head, output in zip(made.heads, outputs, strict=False):
            boxes, scores = head.decode(output)
            assert boxes.shape == (1, head.boxes, 4)
            assert scores.shape == (1, head.boxes, head.classes)


@published
def test_published_files(tmp_path: Path) -> None:
    """They are written again with the same bytes, and the builder's network is that of the published configuration."""
    folder = Path(str(FOLDER))
    config = read_config(folder / "yolov3-tiny.cfg")
    write_config(tmp_path / "a.cfg", config)
    assert (tmp_path / "a.cfg").read_bytes() == (folder / "yolov3-tiny.cfg").read_bytes()
    made = DarknetNetwork(config).eval().load_weights(folder / "yolov3-tiny.weights")
    made.save_weights(tmp_path / "a.weights")
    assert (tmp_path / "a.weights").read_bytes() == (folder / "yolov3-tiny.weights").read_bytes()
    built = yolov3_tiny(folder / "yolov3-tiny.weights").network
    assert built.shapes == made.shapes
    assert [vars(head) for head in built.heads] == [vars(head) for head in made.heads]
    images = torch.rand(1, 3, 416, 416, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert all(torch.equal(a, b) for a, b in zip(built(images), made(images), strict=True))
