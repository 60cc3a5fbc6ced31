"""Feature pyramids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from fastcv.nn.convolution import convolve

__all__ = ["FeaturePyramidNetwork", "rename_keys"]


def rename_keys(state_dict: dict[str, Any], prefix: str, names: dict[str, str]) -> None:
    """Rename weights and biases from old to new: torchvision did so when its convolutions became blocks."""
    for old, new in names.items():
        for kind in ("weight", "bias"):
            if f"{prefix}{old}.{kind}" in state_dict:
                state_dict[f"{prefix}{new}.{kind}"] = state_dict.pop(f"{prefix}{old}.{kind}")


def _conv_block(inputs: int, outputs: int, side: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, side, padding=side // 2)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return nn.Sequential(conv)


def _apply(block: nn.Module, x: Tensor, add: Tensor | None = None) -> Tensor:
    (conv,) = block.children()
    assert isinstance(conv, nn.Conv2d)
    return convolve(conv, x, conv.weight, conv.bias, add=add)


class FeaturePyramidNetwork(nn.Module):
    """Feature maps with the same number of channels from maps of several resolutions, combined from coarse to fine.

    Names of parameters are those of ``torchvision.ops.FeaturePyramidNetwork``; older checkpoints load as well.

    Parameters
    ----------
    in_channels_list : sequence of int
        Channels of the maps, from the finest to the coarsest.
    out_channels : int
        Channels of the results.

    References
    ----------
    Lin, Dollar, Girshick, He, Hariharan, Belongie: Feature Pyramid Networks (2017), section 3.
    """

    _version = 2

    def __init__(self, in_channels_list: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.inner_blocks = nn.ModuleList(_conv_block(inputs, out_channels, 1) for inputs in in_channels_list)
        self.layer_blocks = nn.ModuleList(_conv_block(out_channels, out_channels, 3) for _ in in_channels_list)

    def rename_old_keys(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Rename the keys of an older checkpoint, in place."""
        kinds = ("inner_blocks", "layer_blocks")
        names = {f"{kind}.{i}": f"{kind}.{i}.0" for kind in kinds for i in range(len(self.inner_blocks))}
        rename_keys(state_dict, prefix, names)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        self.rename_old_keys(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return one map per input map, under the same names, and "pool": every second pixel of the coarsest.

        Parameters
        ----------
        x : dict of str to Tensor (N, C_l, H_l, W_l)
            Maps from the finest to the coarsest.
        """
        maps = list(x.values())
        inner = _apply(self.inner_blocks[-1], maps[-1])
        results = [_apply(self.layer_blocks[-1], inner)]
        for index in range(len(maps) - 2, -1, -1):
            fine = maps[index]
            above = F.interpolate(inner, size=fine.shape[-2:], mode="nearest")
            inner = _apply(self.inner_blocks[index], fine, add=above)
            results.append(_apply(self.layer_blocks[index], inner))
        pyramid = dict(zip(x, reversed(results), strict=True))
        pyramid["pool"] = results[0][..., ::2, ::2]
        return pyramid
