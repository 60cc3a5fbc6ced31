"""Files that are written completely or not at all. They are in ``fastcv._files``, for what lies below this folder."""

from fastcv._files import check_writable, replaced_file

__all__ = ["check_writable", "replaced_file"]
