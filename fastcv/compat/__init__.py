"""fastcv in the place of other packages, for programs that import those."""

from fastcv.compat.spconv import install_as_spconv

__all__ = ["install_as_spconv"]
