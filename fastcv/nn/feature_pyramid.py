"""Feature pyramids."""

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from fastcv.nn._plain import is_watched
from fastcv.nn.blocks import Conv2dNormActivation
from fastcv.nn.convolution import convolve_block

__all__ = ["ExtraFPNBlock", "FeaturePyramidNetwork", "LastLevelMaxPool", "LastLevelP6P7", "rename_keys"]


def rename_keys(state_dict: dict[str, Any], prefix: str, names: dict[str, str]) -> None:
    """Rename weights and biases from old to new: torchvision did so when its convolutions became blocks."""
    for old, new in names.items():
        for kind in ("weight", "bias"):
            if f"{prefix}{old}.{kind}" in state_dict:
                state_dict[f"{prefix}{new}.{kind}"] = state_dict.pop(f"{prefix}{old}.{kind}")


class ExtraFPNBlock(nn.Module):
    """What adds maps to those of a pyramid: the base class of such layers."""

    def forward(self, results: list[Tensor], x: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        """Return maps and names with those that are added.

        Parameters
        ----------
        results : list of Tensor
            Maps of the pyramid, from the finest to the coarsest.
        x : list of Tensor
            Maps that the pyramid was made from.
        names : list of str
            Their names.
        """
        raise NotImplementedError("forward must be written by the class that inherits")


class LastLevelMaxPool(ExtraFPNBlock):
    """Adds "pool": every second pixel of the coarsest map. A drop-in for torchvision's."""

    def forward(  # type: ignore[override]  # names of arguments are torchvision's
        self, x: list[Tensor], y: list[Tensor], names: list[str]
    ) -> tuple[list[Tensor], list[str]]:
        """Return the maps ``x`` and ``names``, each with one more."""
        return [*x, x[-1][..., ::2, ::2]], [*names, "pool"]


class LastLevelP6P7(ExtraFPNBlock):
    """Adds "p6" and "p7", convolutions of stride 2 of the coarsest map. A drop-in for torchvision's.

    Parameters
    ----------
    in_channels, out_channels : int
        Where they are equal, the coarsest map of the pyramid is convolved, else the coarsest it was made from.

    References
    ----------
    Lin, Goyal, Girshick, He, Dollar: Focal Loss for Dense Object Detection (2017), section 4.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.p6 = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.p7 = nn.Conv2d(out_channels, out_channels, 3, stride=2, padding=1)
        for conv in (self.p6, self.p7):
            _init(conv)
        self.use_P5 = in_channels == out_channels

    def forward(self, p: list[Tensor], c: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        """Return the maps ``p`` and ``names``, each with two more; ``c`` are what the pyramid was made from."""
        p6 = self.p6(p[-1] if self.use_P5 else c[-1])
        return [*p, p6, self.p7(F.relu(p6))], [*names, "p6", "p7"]


def _init(conv: nn.Conv2d) -> None:
    nn.init.kaiming_uniform_(conv.weight, a=1)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


class FeaturePyramidNetwork(nn.Module):
    """Feature maps with the same number of channels from maps of several resolutions, combined from coarse to fine.

    A drop-in for ``torchvision.ops.FeaturePyramidNetwork``, whose checkpoints load, older ones as well.

    Parameters
    ----------
    in_channels_list : sequence of int
        Channels of the maps, from the finest to the coarsest.
    out_channels : int
        Channels of the results.
    extra_blocks : ExtraFPNBlock, optional
        Adds maps, such as :class:`LastLevelMaxPool`.
    norm_layer : callable, optional
        Takes the number of channels and returns a layer that follows each convolution.

    References
    ----------
    Lin, Dollar, Girshick, He, Hariharan, Belongie: Feature Pyramid Networks (2017), section 3.
    """

    _version = 2

    def __init__(
        self,
        in_channels_list: Sequence[int],
        out_channels: int,
        extra_blocks: ExtraFPNBlock | None = None,
        norm_layer: Callable[..., nn.Module] | None = None,
    ) -> None:
        super().__init__()
        if extra_blocks is not None and not isinstance(extra_blocks, nn.Module):
            raise TypeError(f"extra_blocks must be an ExtraFPNBlock or None, got {type(extra_blocks).__name__}")
        self.inner_blocks = nn.ModuleList()
        self.layer_blocks = nn.ModuleList()
        for inputs in in_channels_list:
            if inputs <= 0:
                raise ValueError(f"in_channels_list must hold positive numbers, got {list(in_channels_list)}")
            for blocks, count, side in ((self.inner_blocks, inputs, 1), (self.layer_blocks, out_channels, 3)):
                blocks.append(
                    Conv2dNormActivation(count, out_channels, side, norm_layer=norm_layer, activation_layer=None)
                )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                _init(module)
        self.extra_blocks = extra_blocks

    def rename_old_keys(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Rename the keys of an older checkpoint, in place."""
        kinds = ("inner_blocks", "layer_blocks")
        names = {f"{kind}.{i}": f"{kind}.{i}.0" for kind in kinds for i in range(len(self.inner_blocks))}
        rename_keys(state_dict, prefix, names)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        self.rename_old_keys(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def get_result_from_inner_blocks(self, x: Tensor, idx: int) -> Tensor:
        """Return the convolution of the input map ``idx``."""
        return convolve_block(self.inner_blocks[idx], x)

    def get_result_from_layer_blocks(self, x: Tensor, idx: int) -> Tensor:
        """Return the convolution of the combined map ``idx``."""
        return convolve_block(self.layer_blocks[idx], x)

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return one map per input map, under the same names, and those of ``extra_blocks``.

        Parameters
        ----------
        x : dict of str to Tensor (N, C_l, H_l, W_l)
            Maps from the finest to the coarsest.
        """
        return self._combined(list(x.values()), list(x), False)

    def combine(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        """:meth:`forward` on maps that the caller does not keep: each goes when it has been used."""
        names = list(x)
        maps = [x.pop(name) for name in names]
        extra = self.extra_blocks
        # other blocks may look at the network's maps
        releases = extra is None or (type(extra) is LastLevelMaxPool and not is_watched(extra))
        return self._combined(maps, names, releases)

    def _combined(self, maps: list[Tensor], names: list[str], releases: bool) -> dict[str, Tensor]:
        left = maps if releases else list(maps)  # what only this list holds goes with its place in it
        inner: Tensor | None = None
        results: list[Tensor] = []
        for index in range(len(maps) - 1, -1, -1):
            block, fine = self.inner_blocks[index], left.pop()
            # A smaller map is read only; one of the same size somebody may have kept.
            is_smaller = inner is not None and inner.shape[-2:] != fine.shape[-2:]
            inner = convolve_block(block, fine, inner, takes_over=is_smaller)
            del fine
            results.insert(0, convolve_block(self.layer_blocks[index], inner))
        if self.extra_blocks is not None:
            results, names = self.extra_blocks(results, maps, names)
        return dict(zip(names, results, strict=True))
