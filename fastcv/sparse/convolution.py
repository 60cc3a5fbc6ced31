"""The sparse convolution that all named layers are forms of, with spconv's arguments and weight layout."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fastcv.ops.sparse_conv import sparse_conv
from fastcv.ops.sparse_kernel_map import Size, layer_geometry
from fastcv.sparse.constants import ConvAlgo
from fastcv.sparse.core import SparseConvTensor, check_input
from fastcv.sparse.inference import PLAIN_CONVOLUTIONS, Chain, Kept, convolve, is_optimized
from fastcv.sparse.modules import SparseModule

__all__ = ["SparseConvolution"]


class SparseConvolution(SparseModule):
    """Convolution over the active sites of a :class:`SparseConvTensor`; base of the layers below.

    Parameters
    ----------
    ndim : int
        Axes of the grid, 1 to 4.
    in_channels, out_channels : int
        Features per site before and after.
    kernel_size, stride, padding, dilation, output_padding : int or sequence of ints
        As in ``nn.Conv3d`` and ``nn.ConvTranspose3d``, one number per axis (z, y, x). Kernels may be even, and of any
        volume.
    groups : int
        Both numbers of channels are multiples of it.
    bias : bool
        Whether a bias (out_channels,) is added to each output site.
    subm : bool
        Submanifold: the output has the input's sites, and the kernel is centred on them; stride and padding do not
        count.
    transposed : bool
        Scatter as ``F.conv_transpose3d`` does, to new sites.
    inverse : bool
        Undo the layer that made the kernel map ``indice_key``: back to the sites that it started from.
    indice_key : str, optional
        Name under which the kernel map is kept. Submanifold layers of one name share their map; an inverse layer needs
        the name of the layer that it undoes.
    algo, fp32_accum, large_kernel_fast_algo
        Accepted for the sake of code written for spconv, and not used: sums of half types are always kept in float32.
    record_voxel_count : bool
        Keep the largest number of output sites so far in the buffer ``max_num_voxels_during_training``.
    name : str, optional
        Kept as an attribute.
    device, dtype
        Of the parameters.

    Attributes
    ----------
    weight : Parameter (out_channels, \\*kernel_size, in_channels / groups)
        Checkpoints of spconv 2.x load as they are. Those of older ones, whose weights are (\\*kernel_size,
        in_channels, out_channels) or (\\*kernel_size, out_channels, in_channels), load where the shape says which it
        is; where it does not, loading is an error unless ``SPCONV_SAVED_WEIGHT_LAYOUT`` says KRSC, RSKC or RSCK, in the
        environment or as ``fastcv.sparse.constants.SAVED_WEIGHT_LAYOUT``.
    bias : Parameter (out_channels,) or None

    conv1x1 : bool
        Whether the kernel has one element that leaves the sites where they are: stride 1 and no padding, or ``subm``.
        Such a layer reads the numbers of its weight, in their order, as (in_channels, out_channels), as spconv does
        whatever the shape of the weight says: ``features @ weight.view(in_channels, out_channels)``. (With groups: the
        numbers of each group so.) It neither reads nor stores ``indice_key``, an inverse layer neither.

    Notes
    -----
    Output sites are those that at least one input site reaches, sorted by batch, z, y, x; submanifold and 1×1×1 layers
    keep the input's order. Under ``torch.autocast`` features and parameters are cast to its dtype.

    Raises
    ------
    ValueError
        For duplicate sites, sites outside the grid, a number of channels that does not fit, a grid that is too small
        for the kernel, or an ``indice_key`` that is taken by, or names, a map that does not fit.

    References
    ----------
    Graham, Engelcke, van der Maaten: 3D Semantic Segmentation with Submanifold Sparse Convolutional Networks (2018),
    section 3. Yan, Mao, Li: SECOND: Sparsely Embedded Convolutional Detection (2018), section 3.
    """

    max_num_voxels_during_training: Tensor
    bias: nn.Parameter | None
    _kept: Kept | None = None

    def __init__(
        self,
        ndim: int,
        in_channels: int,
        out_channels: int,
        kernel_size: Size = 3,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        subm: bool = False,
        output_padding: Size = 0,
        transposed: bool = False,
        inverse: bool = False,
        indice_key: str | None = None,
        algo: Any = None,
        fp32_accum: bool | None = None,
        record_voxel_count: bool = False,
        large_kernel_fast_algo: bool = False,
        name: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(name)
        if in_channels < 1 or out_channels < 1:
            raise ValueError(f"in_channels and out_channels must be positive, got {in_channels} and {out_channels}")
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups must divide in_channels ({in_channels}) and out_channels ({out_channels}), got {groups}"
            )
        if inverse and indice_key is None:
            raise ValueError("indice_key must name the layer that an inverse convolution undoes, got None")
        sizes = (kernel_size, stride, padding, dilation, output_padding)
        self._geometry = layer_geometry(ndim, *sizes, subm=subm, transposed=transposed)
        self.ndim = ndim
        self.in_channels = in_channels
        self.out_channels = out_channels
        shapes = (list(axes[-ndim:]) for axes in self._geometry[1:6])
        self.kernel_size, self.stride, self.padding, self.dilation, self.output_padding = shapes
        self.groups = groups
        self.subm = subm
        self.transposed = transposed
        self.inverse = inverse
        stays = subm or (set(self.stride) == {1} and not any(self.padding))
        self.conv1x1 = set(self.kernel_size) == {1} and stays
        self.indice_key = indice_key
        self.algo = ConvAlgo.Native if algo is None else algo
        self.fp32_accum = fp32_accum
        self.record_voxel_count = record_voxel_count and not subm and not inverse
        if self.record_voxel_count:
            count = torch.zeros(1, dtype=torch.int32, device=device)
            self.register_buffer("max_num_voxels_during_training", count)
        shape = (out_channels, *self.kernel_size, in_channels // groups)
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        made = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype)) if bias else None
        self.register_parameter("bias", made)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias uniformly from ±1/√fan-in, as ``nn.Conv3d`` and spconv do."""
        bound = 1 / math.sqrt(math.prod(self.weight.shape[1:]))
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def get_max_num_voxels(self) -> Tensor | None:
        """Return the largest number of output sites so far, where it is recorded."""
        return getattr(self, "max_num_voxels_during_training", None)

    def is_inverseable(self) -> bool:
        """Return whether an inverse layer can undo this one."""
        return self.indice_key is not None and not self.subm

    def forward(self, input: SparseConvTensor, add_input: SparseConvTensor | None = None) -> SparseConvTensor:
        """Convolve the sparse tensor, and add the features of another one whose sites are the result's."""
        output = None
        if self._kept is not None and is_optimized(self):
            output = convolve(Chain(self), input)
        output = self._convolve(input) if output is None else output
        return output if add_input is None else output + add_input

    def _convolve(self, input: SparseConvTensor) -> SparseConvTensor:
        check_input(input, self.ndim)
        features = input.features
        weight, bias = self.weight, self.bias
        kind = features.device.type
        if torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
            features, weight = features.to(dtype), weight.to(dtype)  # type: ignore[assignment]
            bias = None if bias is None else bias.to(dtype)  # type: ignore[assignment]
        arranged = self.arranged_weight(weight)

        def run(neighbours: Tensor, order: Tensor | None, *rest: Tensor | None) -> Tensor:
            reverse, reverse_order = rest
            return sparse_conv(features, arranged, bias, neighbours, reverse, self.groups, order, reverse_order)

        return self.over_map(input, run, with_reverse=True)

    def arranged_weight(self, weight: Tensor | None = None) -> Tensor:
        """Return the weight (C_out, kz, ky, kx, C_in / groups), as :func:`fastcv.ops.sparse_conv` reads it."""
        weight = self.weight if weight is None else weight
        if self.conv1x1:
            weight = weight.reshape(self.groups, -1, self.out_channels // self.groups).transpose(1, 2)
            return weight.reshape(self.out_channels, 1, 1, 1, -1)
        if self.ndim != 3:
            weight = weight.reshape(self.out_channels, -1, *self._geometry.kernel_size[-2:], weight.shape[-1])
        return weight

    def over_map(
        self, input: SparseConvTensor, run: Callable[..., Tensor], with_reverse: bool = False
    ) -> SparseConvTensor:
        """Return what ``run`` makes of a kernel map, and the order of its rows, at the layer's output sites.

        ``with_reverse`` asks for the map seen from the input, where that is wanted or there, and for its order, too.
        """
        check_input(input, self.ndim)
        if input._channels != self.in_channels:
            raise ValueError(f"input must have {self.in_channels} channels, got {input._channels}")
        if self.conv1x1:
            rows = torch.arange(input.indices.shape[0], dtype=torch.int32, device=input.indices.device)[None]
            output = run(rows, None, *(None, None)[: 2 * with_reverse])
            shape = [size + more for size, more in zip(input.spatial_shape, self.output_padding, strict=True)]
            return input._derived(output, input.indices, shape, input.indice_dict)
        if self.inverse:
            links = input._map_to_undo(self.kernel_size, self.indice_key)
            output = run(links.reverse, links.reverse_order, *(links.neighbours, links.order)[: 2 * with_reverse])
            return input._derived(output, links.indices, links.spatial_shape, input.indice_dict)
        wanted = with_reverse and input._wants_gradient()
        links = input._map_for(self._geometry, self.indice_key, wanted)
        reverse = (links.reverse, links.reverse_order) if wanted else (links.stored_reverse, None)
        output = run(links.neighbours, links.order, *reverse[: 2 * with_reverse])
        if self.record_voxel_count:
            self.max_num_voxels_during_training.clamp_(min=output.shape[0])
        return input._output(output, links, self.indice_key)

    def optimize(self, norm: nn.Module | None = None) -> SparseConvolution:
        """Make the layer ready for fast inference, permanently, and return it: its weight is packed once.

        Sets evaluation mode and turns gradients off. From then on :meth:`train` raises RuntimeError. With ``norm``, the
        batch normalisation behind it, the two are computed as one where a :class:`SparseSequential` calls them. Weights
        and ``state_dict`` stay as they are, and what is written to them is seen, but for what is written through
        ``weight.data``. :func:`fastcv.optimize` does all this for a network.
        """
        self.eval().requires_grad_(False)
        self._kept = Kept(norm)
        return self

    def train(self, mode: bool = True) -> Any:
        """Set training or evaluation mode; an optimized layer cannot train."""
        if mode and self._kept is not None:
            raise RuntimeError("an optimized convolution cannot be trained: it keeps its packed weight")
        return super().train(mode)

    def extra_repr(self) -> str:
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        parts += [f"{name}={getattr(self, name)}" for name in ("padding", "output_padding") if any(getattr(self, name))]
        parts += [f"dilation={self.dilation}"] if set(self.dilation) != {1} else []
        parts += [f"groups={self.groups}"] if self.groups != 1 else []
        parts += ["bias=False"] if self.bias is None else []
        parts += [f"indice_key={self.indice_key!r}"] if self.indice_key is not None else []
        return ", ".join(parts)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if self.record_voxel_count:
            recorded = prefix + "max_num_voxels_during_training"
            state_dict = {recorded: self.max_num_voxels_during_training, **state_dict}
        super()._load_from_state_dict(state_dict, prefix, *rest)


PLAIN_CONVOLUTIONS.add(SparseConvolution)
