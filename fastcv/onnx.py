"""Operators in ONNX: what ``torch.onnx.export(dynamo=True)`` writes for those of fastcv.

::

    torch.onnx.export(model, args, "model.onnx", dynamo=True, custom_translation_table=fastcv.onnx.translation_table())

Needs the packages onnx and onnxscript. ``import fastcv.onnx`` by itself needs neither.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

__all__ = ["translation_table"]

OPSET = 20
_op: Any = None  # onnxscript's operators of that set, once they are needed


def translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return what stands for fastcv's operators in ONNX: ``custom_translation_table`` of ``torch.onnx.export``.

    There are roi_align, multiscale_roi_align, nms, batched_nms, batched_nms_padded, decode_boxes, decode_anchors,
    paste_masks, conv_transpose, max_pool2d_with_indices, upsample_bilinear2d and, where this build has it,
    deform_conv2d: all that ``forward_padded`` of Faster and Mask R-CNN is made of.

    Raises
    ------
    ImportError
        If onnxscript is not installed.

    Notes
    -----
    Values are those of the operators up to rounding, with these exceptions. Suppression by class moves each class by an
    offset, as torchvision does on CUDA, and so loses digits where there are many classes. ONNX suppresses in float32.
    Masks are pasted by products of matrices into images of a fixed size: a number that is not finite spoils its whole
    image. Sizes of results that depend on data stay dynamic.
    """
    global _op
    try:
        from onnxscript import opset20  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise ImportError("fastcv.onnx needs onnxscript: pip install onnx onnxscript") from None
    _op = opset20
    names: dict[str, Callable[..., Any]] = {
        "roi_align": _roi_align,
        "multiscale_roi_align": _multiscale_roi_align,
        "nms": _nms,
        "batched_nms": _batched_nms,
        "batched_nms_padded": _batched_nms_padded,
        "decode_boxes": _decode_boxes,
        "decode_anchors": _decode_anchors,
        "paste_masks": _paste_masks,
        "conv_transpose": _conv_transpose,
        "deform_conv2d": _deform_conv2d,
        "max_pool2d_with_indices": _max_pool2d_with_indices,
        "upsample_bilinear2d": _upsample_bilinear2d,
    }
    return {
        getattr(torch.ops.fastcv, name).default: function
        for name, function in names.items()
        if hasattr(torch.ops.fastcv, name)
    }


def _ints(values: Sequence[int]) -> Any:
    return _op.Constant(value_ints=[int(value) for value in values])


def _columns(rows: Any, start: int, stop: int) -> Any:
    """Return columns of (..., 4): the last axis stays."""
    return _op.Slice(rows, _ints([start]), _ints([stop]), _ints([-1]))


def _number(value: float, like: Any) -> Any:
    return _op.CastLike(_op.Constant(value_float=float(value)), like)


# ---- regions of interest ---------------------------------------------------------------------------------------------


def _roi_align(
    input: Any,
    boxes: Any,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Any:
    index = _op.Cast(_op.Squeeze(_columns(boxes, 0, 1), _ints([1])), to=7)  # int64
    return _op.RoiAlign(
        input,
        _op.CastLike(_columns(boxes, 1, 5), input),
        index,
        coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
        mode="avg",
        output_height=int(pooled_height),
        output_width=int(pooled_width),
        sampling_ratio=max(int(sampling_ratio), 0),
        spatial_scale=float(spatial_scale),
    )


def _multiscale_roi_align(
    features: Sequence[Any],
    boxes: Any,
    pooled_height: int,
    pooled_width: int,
    scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
    canonical_scale: float,
    canonical_level: int,
    min_level: int,
    max_level: int,
) -> Any:
    """Every map is pooled for every box, and the one that suits it is chosen."""
    pooled = [
        _roi_align(feature, boxes, pooled_height, pooled_width, scale, sampling_ratio, aligned)
        for feature, scale in zip(features, scales, strict=True)
    ]
    if len(pooled) == 1:
        return pooled[0]
    size = _op.Sub(_columns(boxes, 3, 5), _columns(boxes, 1, 3))
    side = _op.Sqrt(_op.Mul(_columns(size, 0, 1), _columns(size, 1, 2)))
    octave = _op.Div(_op.Log(_op.Div(side, _number(canonical_scale, side))), _number(math.log(2.0), side))
    level = _op.Floor(_op.Add(octave, _number(canonical_level + 1e-6, side)))
    level = _op.Clip(level, _number(min_level, side), _number(max_level, side))
    level = _op.Unsqueeze(level, _ints([2, 3]))  # (K, 1, 1, 1)
    result = _op.Mul(pooled[0], _number(0.0, pooled[0]))
    for index, values in enumerate(pooled):
        result = _op.Where(_op.Equal(level, _number(min_level + index, side)), values, result)
    return result


# ---- suppression -----------------------------------------------------------------------------------------------------


def _nms(boxes: Any, scores: Any, iou_threshold: float, most: int = 2**31 - 1) -> Any:
    chosen = _op.NonMaxSuppression(
        _op.Unsqueeze(_op.Cast(boxes, to=1), _ints([0])),  # float32
        _op.Unsqueeze(_op.Cast(scores, to=1), _ints([0, 1])),
        _op.Constant(value_ints=[most]),
        _op.Constant(value_floats=[float(iou_threshold)]),
    )
    return _op.Squeeze(_columns(chosen, 2, 3), _ints([1]))


def _batched_nms(boxes: Any, scores: Any, idxs: Any, iou_threshold: float, most: int = 2**31 - 1) -> Any:
    boxes = _op.Cast(boxes, to=1)
    # Of no boxes there is no minimum: one of zeros goes with them.
    with_zeros = _op.Concat(boxes, _op.Constant(value=_zero_row()), axis=0)
    low = _op.ReduceMin(with_zeros, keepdims=0)
    step = _op.Add(_op.Sub(_op.ReduceMax(with_zeros, keepdims=0), low), _op.Constant(value_float=1.0))
    offset = _op.Unsqueeze(_op.Mul(_op.Cast(idxs, to=1), step), _ints([1]))
    return _nms(_op.Add(_op.Sub(boxes, low), offset), scores, iou_threshold, most)


def _zero_row() -> Any:
    from onnx import TensorProto, helper  # type: ignore[import-not-found, unused-ignore]

    return helper.make_tensor("zeros", TensorProto.FLOAT, [1, 4], [0.0] * 4)


def _batched_nms_padded(boxes: Any, scores: Any, idxs: Any, iou_threshold: float, max_output: int) -> tuple[Any, Any]:
    def padded(boxes: Any, scores: Any, idxs: Any) -> tuple[Any, Any]:
        if idxs is None:
            kept = _nms(boxes, scores, iou_threshold, max_output)
        else:
            kept = _batched_nms(boxes, scores, idxs, iou_threshold, max_output)
        rest = _op.Expand(_op.Constant(value_ints=[-1]), _ints([max_output]))
        filled = _op.Slice(_op.Concat(kept, rest, axis=0), _ints([0]), _ints([max_output]))
        return filled, _op.Squeeze(_op.Shape(kept), _ints([0]))

    if len(boxes.shape) == 2:
        return padded(boxes, scores, idxs)
    columns: list[list[Any]] = [[], []]
    for image in range(int(boxes.shape[0])):
        index = _op.Constant(value_int=image)
        one = (None if rows is None else _op.Gather(rows, index, axis=0) for rows in (boxes, scores, idxs))
        for column, value in zip(columns, padded(*one), strict=True):
            column.append(_op.Unsqueeze(value, _ints([0])))
    indices, count = (_op.Concat(*column, axis=0) for column in columns)
    return indices, count


# ---- coding of boxes -------------------------------------------------------------------------------------------------


def _decode(deltas: Any, boxes: Any, weights: Sequence[float], clip: float) -> Any:
    """Apply offsets (..., 4) to boxes of the same number of axes."""
    low, high = _columns(boxes, 0, 2), _columns(boxes, 2, 4)
    size = _op.Sub(high, low)
    half = _number(0.5, size)
    centre = _op.Add(low, _op.Mul(size, half))
    move = _op.Div(_columns(deltas, 0, 2), _op.CastLike(_op.Constant(value_floats=list(weights[:2])), deltas))
    grow = _op.Div(_columns(deltas, 2, 4), _op.CastLike(_op.Constant(value_floats=list(weights[2:])), deltas))
    grow = _op.Min(grow, _number(clip, grow))
    centre = _op.Add(_op.Mul(move, size), centre)
    reach = _op.Mul(_op.Mul(_op.Exp(grow), size), half)
    return _op.Concat(_op.Sub(centre, reach), _op.Add(centre, reach), axis=-1)


def _decode_boxes(
    deltas: Any, boxes: Any, weight_x: float, weight_y: float, weight_w: float, weight_h: float, clip: float
) -> Any:
    classes = int(deltas.shape[1]) // 4
    boxes = _op.Unsqueeze(_op.CastLike(boxes, deltas), _ints([1]))  # (N, 1, 4)
    decoded = _decode(
        _op.Reshape(deltas, _ints([-1, classes, 4])), boxes, (weight_x, weight_y, weight_w, weight_h), clip
    )
    return _op.Reshape(decoded, _ints([-1, 4 * classes]))


def _decode_anchors(
    deltas: Any,
    indices: Any,
    cell_anchors: Sequence[Any],
    feature_sizes: Sequence[int],
    strides: Sequence[int],
    weight_x: float,
    weight_y: float,
    weight_w: float,
    weight_h: float,
    clip: float,
    image_size: Sequence[int],
) -> Any:
    """The grid of all anchors is made: it is a constant."""
    levels = []
    for level, cells in enumerate(cell_anchors):
        height, width = (int(side) for side in feature_sizes[2 * level : 2 * level + 2])
        down, right = (int(step) for step in strides[2 * level : 2 * level + 2])
        places = [v for y in range(height) for x in range(width) for v in (x * right, y * down, x * right, y * down)]
        shifts = _op.Reshape(_op.Constant(value_floats=[float(v) for v in places]), _ints([-1, 1, 4]))
        levels.append(_op.Reshape(_op.Add(_op.CastLike(shifts, cells), cells), _ints([-1, 4])))
    anchors = levels[0] if len(levels) == 1 else _op.Concat(*levels, axis=0)
    chosen = _op.CastLike(_op.Gather(anchors, indices, axis=0), deltas)
    boxes = _decode(deltas, chosen, (weight_x, weight_y, weight_w, weight_h), clip)
    if len(image_size):
        bottom, right_end = (float(side) for side in image_size)
        limits = _op.CastLike(_op.Constant(value_floats=[right_end, bottom, right_end, bottom]), boxes)
        boxes = _op.Max(_op.Min(boxes, limits), _number(0.0, boxes))
    return boxes


# ---- masks -----------------------------------------------------------------------------------------------------------

_DOUBLE = 11  # of TensorProto.DataType; 1 is float32, 7 int64
_FARTHEST = float(2**29)


def _paste_masks(masks: Any, boxes: Any, height: int, width: int, padding: int, threshold: float | None) -> Any:
    """Interpolation is linear along each axis: one matrix of weights on either side of the mask."""
    rows, columns = (int(side) for side in masks.shape[2:])
    working = _DOUBLE if int(masks.dtype) == _DOUBLE else 1
    boxes = _op.Cast(boxes, to=_DOUBLE if int(boxes.dtype) == _DOUBLE else 1)
    low, high = _columns(boxes, 0, 2), _columns(boxes, 2, 4)
    half, scale = _number(0.5, boxes), _number((columns + 2 * padding) / columns, boxes)
    reach = _op.Mul(_op.Mul(_op.Sub(high, low), half), scale)
    centre = _op.Mul(_op.Add(high, low), half)
    first, last = _op.Sub(centre, reach), _op.Add(centre, reach)  # (N, 2): x, y
    right = _paste_weights(first, last, 0, columns, int(width), padding, working)
    down = _paste_weights(first, last, 1, rows, int(height), padding, working)
    plane = _op.Squeeze(_op.Cast(masks, to=working), _ints([1]))
    pasted = _op.MatMul(_op.MatMul(down, plane), _op.Transpose(right, perm=[0, 2, 1]))
    pasted = _op.Unsqueeze(pasted, _ints([1]))
    return _op.CastLike(pasted, masks) if threshold is None else _op.Greater(pasted, _number(threshold, pasted))


def _paste_weights(first: Any, last: Any, axis: int, cells: int, side: int, padding: int, working: int) -> Any:
    """Return (N, side, cells): what each cell of a mask counts for in each pixel, along one axis of the ends (N, 2)."""
    first, last = _columns(first, axis, axis + 1), _columns(last, axis, axis + 1)
    limit = _number(_FARTHEST, first)
    valid = _op.And(_op.Less(_op.Abs(first), limit), _op.Less(_op.Abs(last), limit))  # NaN is not
    zero = _number(0.0, first)
    begin, end = (_op.Cast(_op.Where(valid, place, zero), to=7) for place in (first, last))  # towards zero
    pixels = _ints(range(side))
    offset = _op.Sub(_op.Unsqueeze(pixels, _ints([0])), begin)
    inside = _op.And(_op.GreaterOrEqual(offset, _ints([0])), _op.LessOrEqual(pixels, end))
    inside = _op.And(inside, valid)
    length = _op.Max(_op.Add(_op.Sub(end, begin), _ints([1])), _ints([1]))
    place = _op.Cast(offset, to=working)
    half = _number(0.5, place)
    step = _op.Div(_number(cells + 2 * padding, place), _op.Cast(length, to=working))
    source = _op.Sub(_op.Mul(step, _op.Add(place, half)), half)
    source = _op.Clip(source, _number(0.0, place), _number(cells + 2 * padding - 1, place))
    numbers = _op.CastLike(_op.Constant(value_floats=[float(padding + cell) for cell in range(cells)]), place)
    distance = _op.Abs(_op.Sub(_op.Unsqueeze(source, _ints([2])), numbers))
    weight = _op.Max(_op.Sub(_number(1.0, place), distance), _number(0.0, place))
    return _op.Mul(weight, _op.Cast(_op.Unsqueeze(inside, _ints([2])), to=working))


# ---- convolution -----------------------------------------------------------------------------------------------------


def _conv_transpose(
    input: Any,
    weight: Any,
    bias: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    groups: int,
    dilation: Sequence[int],
    relu: bool,
    packed: Any,
) -> Any:
    inputs = (input, weight) if bias is None else (input, weight, bias)
    result = _op.ConvTranspose(
        *inputs,
        strides=list(stride),
        pads=[*padding, *padding],
        output_padding=[int(side) for side in output_padding],
        group=int(groups),
        dilations=list(dilation),
    )
    return _op.Relu(result) if relu else result


def _deform_conv2d(
    input: Any,
    offset: Any,
    weight: Any,
    bias: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    mask: Any,
) -> Any:
    _, inputs, height, width = (int(side) for side in weight.shape)
    return _op.DeformConv(
        input,
        weight,
        offset,
        bias,
        mask,
        strides=list(stride),
        pads=[*padding, *padding],
        dilations=list(dilation),
        kernel_shape=[height, width],
        group=int(input.shape[1]) // inputs,
        offset_group=int(offset.shape[1]) // (2 * height * width),
    )


def _max_pool2d_with_indices(
    input: Any,
    kernel_height: int,
    kernel_width: int,
    stride_height: int,
    stride_width: int,
    padding_height: int,
    padding_width: int,
    dilation_height: int,
    dilation_width: int,
    ceil_mode: bool,
) -> tuple[Any, Any]:
    values, places = _op.MaxPool(
        input,
        kernel_shape=[kernel_height, kernel_width],
        strides=[stride_height, stride_width],
        pads=[padding_height, padding_width] * 2,
        dilations=[dilation_height, dilation_width],
        ceil_mode=int(ceil_mode),
    )
    plane = _op.ReduceProd(_op.Shape(input, start=2, end=4), keepdims=0)
    return values, _op.Mod(places, plane)  # ONNX counts over the whole tensor


def _upsample_bilinear2d(
    input: Any, height: int, width: int, align_corners: bool, step_height: float, step_width: float
) -> Any:
    size = _op.Concat(_op.Shape(input, start=0, end=2), _ints([height, width]), axis=0)
    mode = "align_corners" if align_corners else "half_pixel"
    return _op.Resize(input, None, None, size, mode="linear", coordinate_transformation_mode=mode)
