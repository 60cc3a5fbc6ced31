"""Functions of sparse tensors."""

from __future__ import annotations

import torch

from fastcv.sparse.core import SparseConvTensor

__all__ = ["sparse_add", "sparse_add_hash_based"]


def sparse_add(*tens: SparseConvTensor) -> SparseConvTensor:
    """Add sparse tensors of the same grid, whose sites may be different.

    Parameters
    ----------
    *tens : SparseConvTensor
        Of the same ``spatial_shape``, ``batch_size`` and number of channels.

    Returns
    -------
    SparseConvTensor
        Active where any of them is. If one of them is active at all these sites, the result has its sites in its order,
        and its kernel maps; else they are sorted by batch, z, y, x, and there are no maps, so that no inverse layer
        can follow. Differentiable, and the same for every run.

    Raises
    ------
    ValueError
        For tensors that do not fit each other, or none.
    """
    if not tens:
        raise ValueError("tens must be one sparse tensor at least, got none")
    first = tens[0]
    for x in tens:
        x._check_rows()
        if (x.spatial_shape, x.batch_size, x.features.shape[1]) != (
            first.spatial_shape,
            first.batch_size,
            first.features.shape[1],
        ):
            raise ValueError(f"sparse tensors must have the same grid and channels to be added, got {first} and {x}")
    sites, place = torch.cat([x.indices for x in tens]).unique(dim=0, return_inverse=True)
    places = place.split([x.indices.shape[0] for x in tens])
    whole = next((i for i, x in enumerate(tens) if x.indices.shape[0] == sites.shape[0]), None)
    if whole is not None:
        row = torch.empty_like(places[whole])
        row[places[whole]] = torch.arange(len(row), device=row.device)
        places = tuple(row[p] for p in places)
        sites = tens[whole].indices
    features = first.features.new_zeros(sites.shape[0], first.features.shape[1])
    for x, rows in zip(tens, places, strict=True):
        features = features.index_add(0, rows, x.features)  # no site twice: no order of additions
    return first._derived(features, sites, first.spatial_shape, {} if whole is None else tens[whole].indice_dict)


sparse_add_hash_based = sparse_add
