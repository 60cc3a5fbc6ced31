"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import torch

from fastcv.data import write_velodyne
from fastcv.data.files import check_writable, replaced_file


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_text("before")
    with replaced_file(path) as file:
        file.write_text("after")
        assert file.parent == tmp_path
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert names(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError])
def test_an_error_leaves_everything_as_it_was(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file.bin"
    path.write_text("before")

    def fail_half_way(target: Path) -> None:
        with replaced_file(target) as file:
            file.write_text("half")
            raise error

    for target in (path, tmp_path / "new.bin"):
        with pytest.raises(error):
            fail_half_way(target)
    assert path.read_text() == "before"
    assert names(tmp_path) == ["file.bin"]


def test_permissions(tmp_path: Path) -> None:
    """New files get those of any new file; a file that is replaced keeps its own."""
    plain, path = tmp_path / "plain", tmp_path / "file"
    plain.touch()
    with replaced_file(path):
        pass
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    path.chmod(0o640)
    with replaced_file(path):
        pass
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/file")
    for text in ("new", "replaced"):
        with replaced_file(tmp_path / "link") as file:
            file.write_text(text)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "folder" / "file").read_text() == text


def test_devices_stay_devices() -> None:
    check_writable("/dev/null")
    with replaced_file("/dev/null") as file:
        file.write_text("gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with pytest.raises(OSError, match="No space left"), replaced_file("/dev/full") as file:
        file.write_text("too much")


@pytest.mark.parametrize(("name", "message"), [
    ("folder", "Is a directory"), ("nowhere/file", "No such file"), ("file/file", "Not a directory"),
    ("n" * 300, "File name too long"),
])  # fmt: skip
def test_what_cannot_be_written_is_named_before(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for attempt in (check_writable, lambda path: replaced_file(path).__enter__()):
        with pytest.raises(OSError, match=message) as caught:
            attempt(tmp_path / name)
        assert caught.value.filename == str(tmp_path / name)
    assert names(tmp_path) == ["file", "folder"]


def test_folders_and_files_without_permission(in_new_process: object) -> None:
    """In a process without the rights of root, who may write everything."""
    script = """
        import os, tempfile
        from pathlib import Path
        from fastcv.data.files import check_writable

        folder = Path(tempfile.mkdtemp(dir="/tmp"))
        if os.geteuid() == 0:
            os.chown(folder, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
        (folder / "file").touch(0o444)
        folder.chmod(0o555)
        for name in ("file", "new"):
            try:
                check_writable(folder / name)
            except PermissionError as error:
                print(error.filename == str(folder / name))
        folder.chmod(0o755)
        (folder / "file").unlink()
        folder.rmdir()
    """
    assert in_new_process(script).split() == ["True", "True"]  # type: ignore[operator]


def test_checking_leaves_no_trace(tmp_path: Path) -> None:
    check_writable(tmp_path / "file")
    assert names(tmp_path) == []


def test_a_full_disk_keeps_the_scan_that_was_there(tmp_path: Path, in_new_process: object) -> None:
    path = tmp_path / "scan.bin"
    write_velodyne(path, torch.ones(3, 4))
    script = f"""
        import resource, torch
        from fastcv.data import write_velodyne
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            write_velodyne({str(path)!r}, torch.zeros(1000, 4))
        except OSError as error:
            print(error.filename, error.strerror)
    """
    assert in_new_process(script).strip() == f"{path} File too large"  # type: ignore[operator]
    assert path.read_bytes() == torch.ones(3, 4).numpy().tobytes()
    assert "scan.bin" in names(tmp_path)
    assert not [name for name in names(tmp_path) if name.endswith(".tmp")]
