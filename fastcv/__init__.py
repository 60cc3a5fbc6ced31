"""Computer-vision operators for PyTorch: hand-written CUDA kernels and vectorised CPU kernels in one wheel.

``fastcv.ops`` holds the operators as functions, ``fastcv.nn`` the same as modules, ``fastcv.sparse`` layers for data
that fills little of its grid, ``fastcv.reference`` the operators' meaning spelled out in plain torch.
"""

# torch comes first: it brings the OpenMP runtime that the compiled module shares.
import torch

if not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
    raise ImportError(
        f"fastcv needs torch >= 2.10, whose tensors offer the DLPack exchange API; found torch {torch.__version__}. "
        "Upgrade with: pip install 'torch>=2.10'"
    )

from fastcv import nn, ops, sparse
from fastcv.accelerate import accelerate_torchvision

__version__ = "0.1.0"

__all__ = ["__version__", "accelerate_torchvision", "nn", "ops", "sparse"]
