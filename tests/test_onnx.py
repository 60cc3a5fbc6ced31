"""Programs with fastcv's operators in ONNX, run by onnxruntime: the same answers."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rcnn_problems import OPTIONS, images, prepare
from torch import Tensor, nn

from fastcv import ops
from fastcv.models import detection
from fastcv.nn import ConvTranspose2d
from fastcv.onnx import translation_table

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


@pytest.fixture
def run_onnx(tmp_path: Path) -> Callable[..., list[Tensor]]:
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install {package}")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install onnxruntime")

    def run(call: Callable[..., Any], *arguments: Tensor, others: tuple[Tensor, ...] = (), **options: Any) -> Any:
        """Export with ``arguments``, and run with ``others``."""

        class Module(nn.Module):
            def forward(self, *tensors: Tensor) -> Any:
                return call(*tensors)

        path = tmp_path / "model.onnx"
        with torch.no_grad():
            torch.onnx.export(
                Module(),
                arguments,
                str(path),
                dynamo=True,
                custom_translation_table=translation_table(),
                verbose=False,
                **options,
            )
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        feeds = {given.name: t.numpy() for given, t in zip(session.get_inputs(), others or arguments, strict=True)}
        return [torch.from_numpy(value) for value in session.run(None, feeds)]

    return run


def boxes(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 40
    return torch.cat([corner, corner + 2 + torch.rand(count, 2, generator=generator) * 20], 1)


def rois(count: int, seed: int = 0) -> Tensor:
    return torch.cat([(torch.arange(count) % 2)[:, None].float(), boxes(count, seed)], 1)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [2, -1])
def test_roi_align(run_onnx: Any, aligned: bool, ratio: int) -> None:
    x = torch.rand(2, 3, 32, 40)
    call = lambda x, b: ops.roi_align(x, b, (3, 2), 0.5, ratio, aligned)  # noqa: E731
    (actual,) = run_onnx(call, x, rois(7), others=(x + 1, rois(7, 1)))
    torch.testing.assert_close(actual, call(x + 1, rois(7, 1)), rtol=1e-4, atol=1e-5)


def test_multiscale_roi_align(run_onnx: Any) -> None:
    maps = [torch.rand(2, 3, 64 >> i, 64 >> i) for i in range(3)]
    call = lambda a, b, c, r: ops.multiscale_roi_align([a, b, c], r, 2, [0.25, 0.125, 0.0625], 2)  # noqa: E731
    large = torch.cat([rois(30)[:, :1], boxes(30) * torch.rand(30, 1).mul(6).exp2()], 1)
    (actual,) = run_onnx(call, *maps, large)
    torch.testing.assert_close(actual, call(*maps, large), rtol=1e-4, atol=1e-5)


def test_suppression(run_onnx: Any) -> None:
    """The number of boxes that are kept is another than when it was exported."""
    scores = torch.rand(60, generator=torch.Generator().manual_seed(1))
    others = (boxes(60, 5) * 0.6, scores.flip(0))
    (actual,) = run_onnx(lambda b, s: ops.nms(b, s, 0.3), boxes(60), scores, others=others)
    assert torch.equal(actual, ops.nms(*others, 0.3))
    assert 5 < len(actual) < 60
    classes = torch.arange(60) % 3
    (actual,) = run_onnx(lambda b, s, c: ops.batched_nms(b, s, c, 0.3), boxes(60) - 20, scores, classes)
    assert torch.equal(actual, ops.batched_nms(boxes(60) - 20, scores, classes, 0.3))
    for idxs in (None, classes):
        for batch in (False, True):
            given = [tensor[None].repeat(2, *[1] * tensor.dim()) if batch else tensor for tensor in (boxes(60), scores)]
            kinds = None if idxs is None else idxs[None].repeat(2, 1) if batch else idxs
            call = lambda b, s, kinds=kinds: ops.batched_nms_padded(b, s, kinds, 0.3, 50)  # noqa: E731
            for left, right in zip(run_onnx(call, *given), call(*given), strict=True):
                assert torch.equal(left, right)


@pytest.mark.parametrize("relu", [False, True])
def test_conv_transpose(run_onnx: Any, relu: bool) -> None:
    torch.manual_seed(0)
    layer = ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1, groups=2, dilation=2, activation="relu" if relu else None)
    x = torch.rand(2, 4, 7, 9)
    (actual,) = run_onnx(layer.eval(), x)
    torch.testing.assert_close(actual, layer(x).detach(), rtol=1e-4, atol=1e-5)
    weight = torch.rand(4, 2, 3)
    (actual,) = run_onnx(lambda x: ops.conv_transpose1d(x, weight, None, 2), x[..., 0])
    torch.testing.assert_close(actual, ops.conv_transpose1d(x[..., 0], weight, None, 2), rtol=1e-4, atol=1e-5)


def test_pooling_and_upsampling(run_onnx: Any) -> None:
    x = torch.rand(2, 3, 9, 8)
    call = lambda x: ops.max_pool2d_with_indices(x, 3, 2, 1)  # noqa: E731
    for actual, expected in zip(run_onnx(call, x), call(x), strict=True):
        assert torch.equal(actual, expected)
    for corners in (False, True):
        (actual,) = run_onnx(lambda x, c=corners: ops.upsample_bilinear2d(x, (13, 20), align_corners=c), x)
        expected = nn.functional.interpolate(x, (13, 20), mode="bilinear", align_corners=corners)
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("threshold", [None, 0.5, -1.0])
@pytest.mark.parametrize(("dtype", "padding"), [(torch.float32, 1), (torch.float64, 0), (torch.float16, 2)])
def test_paste_masks(run_onnx: Any, dtype: torch.dtype, padding: int, threshold: float | None) -> None:
    """Boxes inside, across the border, outside, inverted, of no size, not finite and far away; none at all."""
    rows = [[3.0, 4.0, 30.5, 22.2], [-9.0, -7.5, 12.0, 60.0], [70.0, 5.0, 90.0, 9.0], [20.0, 20.0, 8.0, 9.0]]
    rows += [[5.0, 5.0, 5.0, 5.0], [float("nan"), 1.0, 9.0, 9.0], [1.0, 1.0, 9.0, 1e30], [-2000.0, -1e3, 1e3, 3000.0]]
    given = torch.tensor(rows)
    masks = torch.rand(len(given), 1, 7, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    masks = torch.where((masks - 0.5).abs() < 0.02, 0.6, masks)  # none near the threshold
    call = lambda m, b: ops.paste_masks(m, b, (40, 50), padding, threshold)  # noqa: E731
    (actual,) = run_onnx(call, masks, given)
    expected = call(masks, given)
    if threshold is None:
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=2e-5 if dtype is not torch.float16 else 1e-3)
        assert actual[:2].any(3).any(2).all()
    else:
        assert (actual == expected).float().mean() > 0.9999  # to rounding
    assert actual.dtype is expected.dtype


FORMS = {
    # groups, groups of offsets, kernel, stride, padding, dilation
    "plain": (1, 1, (3, 3), 1, 1, 1),
    "groups": (2, 1, (3, 3), 1, 1, 1),
    "groups of offsets": (1, 2, (3, 3), 1, 1, 1),
    "both": (2, 4, (3, 3), 1, 1, 1),
    "strides": (1, 1, (3, 3), (2, 1), (1, 0), 1),
    "dilation": (2, 2, (3, 3), 1, 2, 2),
    "pointwise": (4, 1, (1, 1), 1, 0, 1),
    "oblong": (1, 1, (3, 1), 1, (1, 0), 1),
}


@pytest.mark.skipif(not hasattr(ops, "deform_conv2d"), reason="this build has no deform_conv2d")
@pytest.mark.parametrize(("modulated", "bias"), [(False, True), (True, False)], ids=["v1", "v2"])
@pytest.mark.parametrize("form", FORMS)
def test_deform_conv2d(run_onnx: Any, form: str, modulated: bool, bias: bool) -> None:
    groups, offset_groups, kernel, stride, padding, dilation = FORMS[form]
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 4, kernel, stride, padding, dilation, groups, bias)
    x = torch.rand(2, 4, 9, 8)
    offsets = offset_groups * kernel[0] * kernel[1]
    offset = 2 * torch.randn(2, 2 * offsets, *layer(x).shape[2:])
    given = (x, offset, torch.rand_like(offset[:, :offsets])) if modulated else (x, offset)

    def call(x: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:
        return ops.deform_conv2d(x, offset, layer.weight, layer.bias, stride, padding, dilation, mask)

    (actual,) = run_onnx(call, *given)
    torch.testing.assert_close(actual, call(*given).detach(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["fasterrcnn", "maskrcnn"])
def test_a_detector(run_onnx: Any, kind: str) -> None:
    torch.manual_seed(2)
    model = detection.create(f"{kind}_tiny_fpn", num_classes=5, **{**OPTIONS, "box_detections_per_img": 8})
    prepare(model)
    batch = torch.stack([images()[0], images()[0].flip(1)])
    with torch.no_grad():
        expected = model.forward_padded(batch)
    assert expected["count"].min() > 3
    actual = dict(zip(expected, run_onnx(model.forward_padded, batch), strict=True))
    assert torch.equal(actual["count"], expected["count"])
    for image, number in enumerate(expected["count"].tolist()):
        assert torch.equal(actual["labels"][image, :number], expected["labels"][image, :number])
        for key, close in (("scores", 1e-3), ("boxes", 5e-2)):
            torch.testing.assert_close(actual[key][image, :number], expected[key][image, :number], rtol=0, atol=close)
        if kind == "maskrcnn":
            # The corners of a pasted mask are cut off to whole pixels: rounding may move one by a pixel.
            difference = (actual["masks"][image, :number] - expected["masks"][image, :number]).abs()
            assert expected["masks"][image, :number].amax((1, 2, 3)).min() > 0.1
            assert (difference > 1e-2).float().mean() < 1e-3
    assert not actual["boxes"][0, expected["count"][0] :].any()


def test_without_onnxscript(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *arguments: Any) -> Any:
        if name.startswith("onnx"):
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ImportError, match="needs onnxscript: pip install onnx onnxscript"):
        translation_table()
