"""What the compiled module was built with."""

from __future__ import annotations

from typing import Any

from fastcv import _C

__all__ = ["build_info"]


def build_info() -> dict[str, Any]:
    """Return how the compiled module was built and which instruction set it uses here.

    Returns
    -------
    dict
        ``version``, ``compiler``, ``cpu_variant`` (in use), ``cpu_variants`` (available on this processor),
        ``bf16_products`` (of matrices of bfloat16: ``"instruction"``, that of AVX512-BF16, ``"float32"``, or
        ``"emulated"`` where ``avx512_bf16`` is forced on a processor without it), ``openmp``, ``cuda`` (whether CUDA
        kernels are compiled in), ``cuda_version`` and ``cuda_architectures``.
    """
    return _C.build_info()
