"""The layers of the published configurations, yolov1 to yolov4-tiny, with fewer channels, against OpenCV and loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fastcv.models.yolo import YOLO, DarknetNetwork, DarknetWeights, make_config, write_config

Sections = list[tuple[str, dict[str, Any]]]
ANCHORS = "10,14, 23,27, 37,58, 81,82, 135,169, 344,319"
V2_ANCHORS = "1.3221,1.73145, 3.19275,4.00944, 5.05587,8.09892, 9.47112,4.84053, 11.2364,10.0071"
POOL = ("maxpool", {"size": 2, "stride": 2})


def conv(filters: int, size: int, stride: int = 1, activation: str = "leaky") -> tuple[str, dict[str, Any]]:
    return "convolutional", {
        "batch_normalize": 1, "filters": filters, "size": size, "stride": stride, "pad": 1, "activation": activation
    }  # fmt: skip


def last(filters: int) -> tuple[str, dict[str, Any]]:
    return "convolutional", {"filters": filters, "size": 1, "stride": 1, "pad": 1, "activation": "linear"}


def head(mask: str, **options: Any) -> tuple[str, dict[str, Any]]:
    return "yolo", {"mask": mask, "anchors": ANCHORS, "classes": 3, "num": 6, "ignore_thresh": 0.7, **options}


def darknet_19(classes: int = 3) -> Sections:
    """yolov2 and yolov2-voc: a finer map joins the coarse one, reorganised."""
    trunk = [conv(4, 3), POOL, conv(8, 3), POOL, conv(16, 3), conv(8, 1), conv(16, 3), POOL, conv(16, 3), conv(8, 1)]
    trunk += [conv(16, 3), POOL, conv(32, 3), conv(16, 1), conv(32, 3), POOL, conv(32, 3), conv(16, 1), conv(32, 3)]
    region = {"anchors": V2_ANCHORS, "classes": classes, "coords": 4, "num": 5, "softmax": 1, "bias_match": 1}
    joined: Sections = [
        conv(32, 3), conv(32, 3), ("route", {"layers": "-7"}), conv(8, 1), ("reorg", {"stride": 2}),
        ("route", {"layers": "-1,-4"}), conv(32, 3), last(5 * (5 + classes)),
        ("region", {**region, "rescore": 1, "object_scale": 5, "thresh": 0.6, "absolute": 1, "random": 1}),
    ]  # fmt: skip
    return trunk + joined


def half_block(width: int) -> Sections:
    """Of yolov4-tiny: half of the channels take a longer way."""
    return [
        conv(width, 3), ("route", {"layers": "-1", "groups": 2, "group_id": 1}), conv(width // 2, 3),
        conv(width // 2, 3), ("route", {"layers": "-1,-2"}), conv(width, 1), ("route", {"layers": "-6,-1"}), POOL,
    ]  # fmt: skip


def yolov4_tiny() -> Sections:
    options = {"scale_x_y": 1.05, "iou_loss": "ciou", "nms_kind": "greedynms", "beta_nms": 0.6, "cls_normalizer": 1.0}
    return [
        conv(4, 3, 2), conv(8, 3, 2), *half_block(8), *half_block(16), *half_block(32), conv(32, 3), conv(16, 1),
        conv(32, 3), last(24), head("3,4,5", **options), ("route", {"layers": "-4"}), conv(16, 1, activation="mish"),
        ("upsample", {"stride": 2}), ("route", {"layers": "-1,23"}), conv(16, 3), last(24), head("1,2,3", **options),
    ]  # fmt: skip


def yolov3_spp() -> Sections:
    """Shortcuts, and pools of three sizes side by side."""
    add = ("shortcut", {"from": "-3", "activation": "linear"})
    pyramid: Sections = [("maxpool", {"size": 5, "stride": 1}), ("route", {"layers": "-2"})]
    pyramid += [
        ("maxpool", {"size": 9, "stride": 1}),
        ("route", {"layers": "-4"}),
        ("maxpool", {"size": 13, "stride": 1}),
    ]
    pyramid += [("route", {"layers": "-1,-3,-5,-6"})]
    return [
        conv(4, 3), conv(8, 3, 2), conv(4, 1), conv(8, 3), add, conv(16, 3, 2), conv(8, 1), conv(16, 3), add,
        conv(16, 3, 2), conv(32, 3, 2), conv(16, 1), *pyramid, conv(16, 1), conv(32, 3), last(24), head("3,4,5"),
        ("route", {"layers": "-4"}), conv(8, 1), ("upsample", {"stride": 2}), ("route", {"layers": "-1,9"}),
        conv(16, 3), last(24), head("0,1,2"),
    ]  # fmt: skip


NETWORKS = {"yolov2": darknet_19, "yolov4-tiny": yolov4_tiny, "yolov3-spp": yolov3_spp}


@pytest.mark.parametrize("name", list(NETWORKS))
def test_agreement_with_opencv(tmp_path: Path, name: str) -> None:
    """Of random weights and statistics: the raw maps, and boxes where OpenCV scores them."""
    cv2 = pytest.importorskip("cv2")
    if not hasattr(cv2.dnn, "readNetFromDarknet"):
        pytest.skip("OpenCV 5 does not read Darknet's files")
    torch.manual_seed(0)
    sections = [("net", {"width": 96, "height": 128, "channels": 3}), *NETWORKS[name]()]
    model = YOLO(DarknetNetwork(make_config(sections)))
    for key, value in model.network.state_dict().items():
        if "running" in key or "norm" in key:
            value.copy_(torch.rand(value.shape) + 0.5) if value.is_floating_point() else None
    write_config(tmp_path / "a.cfg", model.network.config)
    model.network.save_weights(tmp_path / "a.weights")
    net = cv2.dnn.readNetFromDarknet(str(tmp_path / "a.cfg"), str(tmp_path / "a.weights"))
    images = torch.rand(1, 3, 128, 96)
    net.setInput(images.numpy())
    heads = [i for i, (kind, _) in enumerate(sections[1:]) if kind in ("yolo", "region")]
    theirs = net.forward([f"conv_{i - 1}" for i in heads])
    with torch.inference_mode():
        ours = model.network(images)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.std() > 1e-3
        torch.testing.assert_close(mine, torch.from_numpy(other), rtol=1e-3, atol=1e-4 * float(mine.abs().max()))
    boxes, _ = model.decode(ours)
    rows = np.concatenate([part.reshape(-1, 8) for part in net.forward(net.getUnconnectedOutLayersNames())])
    half = rows[:, 2:4] / 2
    corners = np.concatenate([rows[:, :2] - half, rows[:, :2] + half], 1) * np.array([96, 128, 96, 128])
    torch.testing.assert_close(boxes[0], torch.from_numpy(corners).float(), rtol=1e-3, atol=0.05)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_reorg_is_darknets(stride: int) -> None:
    """Against Darknet's loop over the numbers of a map."""
    channels, height, width = 2 * stride * stride, 2 * stride, 3 * stride
    net = ("net", {"channels": channels, "height": height, "width": width})
    made = DarknetNetwork(make_config([net, ("reorg", {"stride": stride})]))
    images = torch.arange(2 * channels * height * width).view(2, channels, height, width).float()
    assert made.shapes == [(channels * stride * stride, 2, 3)]
    few = channels // (stride * stride)
    wanted = torch.empty(2, images[0].numel())
    for image in range(2):
        flat = images[image].flatten()
        for k in range(channels):
            for j in range(height):
                for i in range(width):
                    x, y = i * stride + k // few % stride, j * stride + k // few // stride
                    wanted[image, i + width * (j + height * k)] = flat[
                        x + width * stride * (y + height * stride * (k % few))
                    ]
    assert torch.equal(made(images)[0].flatten(1), wanted)


@pytest.mark.parametrize(("size", "stride", "pad"), [(3, 1, 1), (3, 2, 1), (2, 1, 0), (5, 3, 0)])
def test_local_is_a_convolution_with_weights_of_each_place(size: int, stride: int, pad: int) -> None:
    options = {"filters": 4, "size": size, "stride": stride, "pad": pad, "activation": "leaky"}
    made = DarknetNetwork(make_config([("net", {"channels": 2, "height": 7, "width": 6}), ("local", options)]))
    (filters, height, width), inputs = made.shapes[0], 2 * size * size
    torch.manual_seed(0)
    bias, weight = torch.randn(filters, height, width), torch.randn(height, width, filters, 2, size, size)
    made.load_weights(DarknetWeights(torch.cat([bias.flatten(), weight.flatten()])))
    assert sum(p.numel() for p in made.parameters()) == bias.numel() + height * width * filters * inputs
    images = torch.randn(3, 2, 7, 6)
    padded = torch.nn.functional.pad(images, (pad, pad, pad, pad))
    wanted = torch.empty(3, filters, height, width)
    for y in range(height):
        for x in range(width):
            window = padded[:, :, y * stride : y * stride + size, x * stride : x * stride + size]
            wanted[..., y, x] = torch.einsum("ncij,fcij->nf", window, weight[y, x]) + bias[:, y, x]
    torch.testing.assert_close(made(images)[0], torch.where(wanted > 0, wanted, 0.1 * wanted), rtol=1e-4, atol=1e-5)


def first_version(local: bool) -> Sections:
    """yolov1 with its [local], or yolov1-tiny."""
    options = {"filters": 8, "size": 3, "stride": 1, "pad": 1, "activation": "leaky"}
    end: Sections = [("local", options), ("dropout", {"probability": 0.5})] if local else []
    detection = {"classes": 3, "coords": 4, "rescore": 1, "side": 3, "num": 2, "softmax": 0, "sqrt": 1, "jitter": 0.2}
    connected = ("connected", {"output": 3 * 3 * 13, "activation": "linear"})
    return [conv(4, 7, 2), POOL, conv(8, 3), POOL, *end, connected, ("detection", detection)]


@pytest.mark.parametrize("local", [True, False])
def test_networks_of_version_1_run_train_and_are_saved(tmp_path: Path, local: bool) -> None:
    torch.manual_seed(0)
    config = make_config([("net", {"width": 48, "height": 48, "channels": 3}), *first_version(local)])
    model = YOLO(DarknetNetwork(config), score_thresh=0.0)
    image = torch.rand(3, 40, 60)
    model.network.save_weights(tmp_path / "a.weights")
    again = YOLO(DarknetNetwork(config), score_thresh=0.0).load_weights(tmp_path / "a.weights")
    for name, value in model([image])[0].items():
        assert torch.equal(again([image])[0][name], value)
    target: dict[str, Tensor] = {"boxes": torch.tensor([[5.0, 5, 30, 30]]), "labels": torch.tensor([2])}
    losses = model.train()([image, image], [target, target])
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (("reorg", {"stride": 2}), "stride must divide the map's size, and its square the channels of (3, 8, 8)"),
        (("reorg", {"stride": 1, "reverse": 1}), "reverse is not supported, got 1"),
        (("local", {"size": 5, "pad": 1}), "pad must be 0 for a size other than 3, got size 5"),
        (("local", {"size": 9}), "size must be at most the padded map's, (8, 8), got 9"),
        (("dropout", {"probability": 2}), "probability must be from 0 to 1, got 2"),
    ],
)
def test_bad_layers(section: tuple[str, dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError) as caught, torch.device("meta"):  # noqa: PT011 - compared below
        DarknetNetwork(make_config([("net", {"width": 8, "height": 8, "channels": 3}), section]))
    assert message in str(caught.value)
