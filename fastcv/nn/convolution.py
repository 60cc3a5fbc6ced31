"""Convolution with what follows it in one pass: by fastcv's kernels where a module is optimized, else by torch's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fastcv.nn._plain import is_fusible, is_watched
from fastcv.nn.batch_norm import has_fixed_statistics, scale_and_shift
from fastcv.nn.blocks import Conv2dNormActivation
from fastcv.nn.conv2d import Conv2d
from fastcv.ops._call import is_plain

__all__ = ["convolve", "convolve_block", "convolve_normalized", "joined"]

_NOTHING = nn.Identity()

# torch's entry to oneDNN's convolution with an epilogue, made for its compiler. Without it the same is said in three
# calls. On a CPU those two passes over each feature map are a quarter of a ResNet's time.
_unary: Any = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
_binary: Any = getattr(getattr(torch.ops.mkldnn, "_convolution_pointwise_", None), "binary", None)


def _can_fuse(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN's convolution with an epilogue may take these: on a CPU, in float32, for inference."""
    return bool(
        is_plain(x)
        and is_plain(weight)
        and x.is_cpu
        and x.dtype is torch.float32
        and weight.dtype is torch.float32
        and _binary is not None
        and not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and x.numel() > 0
    )


def convolve(
    conv: nn.Module,
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    relu: bool = False,
    add: Tensor | None = None,
    takes_over: bool = False,
) -> Tensor:
    """Return ``relu(conv(x) + add)``, where ``conv`` may have a ``weight`` and a ``bias`` in place of its own.

    With ``takes_over`` nobody else needs ``add``, which may be overwritten. Of a smaller one nearest pixels are added.
    A layer that is not a plain convolution is called.
    """
    if not is_fusible(conv):
        return _finish(conv(x), relu, add)
    assert isinstance(conv, nn.Conv2d)
    if weight is None:
        if isinstance(conv, Conv2d) and conv.is_served(x, add, enlarges=takes_over):
            return conv.convolve(x, add, "relu" if relu else None, takes_over=takes_over)
        weight, bias = conv.weight, conv.bias
    if add is not None:
        add = _enlarged(conv, add, x)
    if conv.padding_mode == "zeros" and not isinstance(conv.padding, str) and _can_fuse(x, weight):
        form = (conv.padding, conv.stride, conv.dilation, conv.groups)
        if add is None:
            if relu:
                return _unary(x, weight, bias, *form, "relu", [], "")  # type: ignore[no-any-return]
        elif add.is_contiguous(memory_format=torch.channels_last):
            add = add if takes_over else add.clone()
            return _binary(add, x, weight, bias, *form, "add", 1.0, "relu" if relu else None, [], "")  # type: ignore[no-any-return]
    x = conv._conv_forward(x, weight, bias)
    if add is not None:
        x = x + add
    return x.relu_() if relu else x


def _enlarged(conv: nn.Conv2d, add: Tensor, x: Tensor) -> Tensor:
    """Return the nearest pixels of a map for a convolution that keeps the size of its input, or the map as it is."""
    if add.shape[-2:] == x.shape[-2:] or conv.stride != (1, 1):
        return add
    return F.interpolate(add, size=x.shape[-2:], mode="nearest")


def _finish(x: Tensor, relu: bool, add: Tensor | None) -> Tensor:
    """Return ``relu(x + add)`` of what a called layer has returned, which somebody may have kept."""
    if add is not None:
        x = x + (add if add.shape[-2:] == x.shape[-2:] else F.interpolate(add, size=x.shape[-2:], mode="nearest"))
        return x.relu_() if relu else x
    return F.relu(x) if relu else x


def convolve_normalized(
    conv: nn.Module,
    norm: nn.Module,
    x: Tensor,
    relu: bool = False,
    add: Tensor | None = None,
    takes_over: bool = False,
) -> Tensor:
    """Return ``relu(norm(conv(x)) + add)``.

    A normalisation with fixed statistics is multiplied into the weight, anew in each call: that costs a pass over the
    weight and saves one over the feature map, and there is no cached copy to become stale. ``add`` and layers that are
    not plain are taken as by :func:`convolve`.
    """
    if is_watched(norm):
        return _finish(norm(convolve(conv, x)), relu, add)
    if isinstance(norm, nn.Identity):
        return convolve(conv, x, relu=relu, add=add, takes_over=takes_over)
    if has_fixed_statistics(norm) and is_fusible(conv):
        weight: Any = conv.weight
        bias: Any = conv.bias
        scale, shift = scale_and_shift(norm)  # type: ignore[arg-type]
        shift = shift if bias is None else shift + bias * scale
        return convolve(conv, x, weight * scale[:, None, None, None], shift, relu, add, takes_over)
    x = norm(convolve(conv, x))
    if add is None:
        return x.relu_() if relu else x
    return _finish(x, relu, add)


def convolve_block(block: nn.Module, x: Tensor, add: Tensor | None = None, takes_over: bool = False) -> Tensor:
    """Return what a block of convolution, normalisation and ReLU makes of ``x``, and ``add`` on top of it.

    Its layers are fused where they are plain, as those of a ``nn.Sequential`` of convolution and ReLU are; any other
    block is called.
    """
    if isinstance(x, fx.Proxy):  # a symbolic trace shows the layers as they are, and knows no sizes
        result: Any = block(x)
        return result if add is None else result + F.interpolate(add, size=result.shape[-2:], mode="nearest")
    if not _is_block(block) or is_watched(block) or not is_fusible(block[0]):  # type: ignore[index]
        return _finish(block(x), False, add)
    conv, *others = block.children()
    relu = bool(others) and type(others[-1]) is nn.ReLU and not is_watched(others[-1])
    norms = others[:-1] if relu else others
    if len(norms) > 1 or (relu and add is not None):
        return _finish(block(x), False, add)
    return convolve_normalized(conv, norms[0] if norms else _NOTHING, x, relu, add, takes_over)


def _is_block(block: nn.Module) -> bool:
    if type(block) is nn.Sequential and not is_watched(block):
        return len(block) == 2 and type(block[1]) is nn.ReLU and not is_watched(block[1])
    return type(block) is Conv2dNormActivation


def joined(owner: nn.Module, parts: Sequence[nn.Module]) -> Conv2d | None:
    """Return optimized convolutions of one pixel that read the same map as one, results side by side, or None.

    It is kept with ``owner``, apart from its modules and its state, and made anew when a weight has changed.
    """
    if torch.compiler.is_compiling():
        return None
    convs: list[Any] = [part for part in parts if _is_of_one_pixel(part)]
    if len(convs) != len(parts):
        return None
    tensors = [tensor for conv in convs for tensor in conv._parameters.values()]
    if not all(is_plain(tensor) and not tensor.requires_grad for tensor in tensors):  # someone follows it
        return None
    state = [(id(t), t._version, t.data_ptr(), t.dtype) for t in tensors]
    made = owner.__dict__.get("_joint")
    if made is None or made[0] != state:
        with torch.inference_mode(False):  # inference tensors count no versions, and are packed in each call
            conv = nn.Conv2d(convs[0].in_channels, sum(conv.out_channels for conv in convs), 1, device="meta")
            conv.weight = nn.Parameter(torch.cat([conv.weight for conv in convs]), requires_grad=False)
            conv.bias = nn.Parameter(torch.cat([conv.bias for conv in convs]), requires_grad=False)
            made = owner.__dict__["_joint"] = (state, Conv2d.from_conv(conv), tensors)  # no other has their addresses
    joint: Conv2d = made[1]
    return joint


def _is_of_one_pixel(part: nn.Module) -> bool:
    """Whether a layer is an optimized convolution of one pixel, and nothing else is to happen in it."""
    return (
        type(part) is Conv2d
        and part._packed is not None
        and not is_watched(part)
        and part.kernel_size == part.stride == (1, 1)
        and part.padding == (0, 0)
        and part.groups == 1
        and part.activation is None
        and part.bias is not None
        and not part.bias.is_inference()
    )
