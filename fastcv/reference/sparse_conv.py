"""Sparse convolution over a kernel map in plain torch (Graham et al. 2018, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor


def sparse_conv(
    features: Tensor, weight: Tensor, bias: Tensor | None, neighbours: Tensor, reverse: Tensor, groups: int = 1
) -> Tensor:
    """Convolve features (N, C_in) with weight (C_out, kz, ky, kx, C_in / groups) to (M, C_out).

    ``out[m] = bias + sum_k weight[:, k] features[neighbours[k, m]]``, where a neighbour of -1 adds nothing.
    Differentiable in features, weight and bias; ``reverse`` says nothing that ``neighbours`` does not.
    """
    out_channels = weight.shape[0]
    kernel = weight.reshape(groups, out_channels // groups, -1, weight.shape[-1])  # group, C_out, element, C_in
    output = features.new_zeros(neighbours.shape[1], out_channels)
    for element, rows in enumerate(neighbours.long()):
        (there,) = (rows >= 0).nonzero(as_tuple=True)
        gathered = features[rows[there]].reshape(len(there), groups, weight.shape[-1])
        product = torch.einsum("mgi,goi->mgo", gathered, kernel[:, :, element]).reshape(-1, out_channels)
        output = output.index_add(0, there, product)
    return output if bias is None else output + bias
