"""Point clouds from files: values of files written here byte by byte, faults, and mutated bytes."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from fastcv.data import POINT_FORMATS, read_points
from fastcv.data.pcd import decompress_lzf

POINTS = np.array([[1, 2, 3, 0.5], [-4, 5.25, -6, 1], [0, 0.125, 9, 0.25]], dtype=np.float32)
CUBE = """OFF
8 6 0
# a remark
0 0 0
1 0 0
1 1 0
0 1 0
0 0 1
1 0 1
1 1 1
0 1 1
4 0 1 2 3
4 4 5 6 7
4 0 1 5 4 255 0 0
4 1 2 6 5
4 2 3 7 6
4 3 0 4 7
"""


def ply(form: str, rows: bytes, count: int = 3, before: str = "") -> bytes:
    header = f"ply\nformat {form} 1.0\ncomment made here\n{before}element vertex {count}\nproperty float x\n"
    header += "property double y\nproperty float z\nproperty uchar red\nelement face 1\n"
    return (header + "property list uchar int vertex_indices\nend_header\n").encode() + rows


def ply_rows(order: str) -> bytes:
    return (
        b"".join(struct.pack(f"{order}fdfB", x, y, z, int(v * 100)) for x, y, z, v in POINTS.tolist()) + b"\3\0\0\0\0"
    )


def pcd(how: str, body: bytes, count: int = 3) -> bytes:
    header = (
        f"# .PCD v0.7\nVERSION 0.7\nFIELDS x y z intensity\nSIZE 4 4 4 4\nTYPE F F F F\nCOUNT 1 1 1 1\nWIDTH {count}\n"
    )
    return (header + f"HEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {count}\nDATA {how}\n").encode() + body


def lzf_literals(data: bytes) -> bytes:
    return b"".join(bytes([len(part) - 1]) + part for part in (data[i : i + 32] for i in range(0, len(data), 32)))


def compressed(data: bytes) -> bytes:
    packed = lzf_literals(data)
    return struct.pack("<II", len(packed), len(data)) + packed


def saved(function: str, *arrays: np.ndarray, **named: np.ndarray) -> bytes:
    stream = io.BytesIO()
    getattr(np, function)(stream, *arrays, **named)
    return stream.getvalue()


TEXT = b"\n".join(b" ".join(str(v).encode() for v in row) for row in POINTS.tolist())
GOOD: dict[str, bytes] = {
    "ascii.ply": ply("ascii", b"1 2 3 50\n-4 5.25 -6 100\n0 0.125 9 25\n3 0 1 2\n"),
    "little.ply": ply("binary_little_endian", ply_rows("<")),
    "big.ply": ply("binary_big_endian", ply_rows(">")),
    "ascii.pcd": pcd("ascii", TEXT + b"\n"),
    "binary.pcd": pcd("binary", POINTS.tobytes()),
    "compressed.pcd": pcd("binary_compressed", compressed(POINTS.T.tobytes())),
    "scan.bin": POINTS[[0, 2, 1]].tobytes(),
    "array.npy": saved("save", POINTS),
    "double.npy": saved("save", np.asfortranarray(POINTS.astype(">f8"))),
    "archive.npz": saved("savez", POINTS),
    "packed.npz": saved("savez_compressed", points=POINTS, labels=np.zeros(3)),
    "rows.txt": TEXT.replace(b" ", b", "),
    "rows.xyz": b"# x y z i\n" + TEXT,
    "cube.off": CUBE.encode(),
}


@pytest.mark.parametrize("name", [name for name in GOOD if name != "cube.off"])
def test_values(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(GOOD[name])
    points = read_points(tmp_path / name)
    expected = torch.from_numpy(POINTS.copy())
    if name.endswith(".ply"):
        expected[:, 3] *= 100
    if name == "scan.bin":
        expected = expected[[0, 2, 1]]
    assert points.dtype is torch.float32
    assert torch.equal(points, expected)
    assert torch.equal(read_points(str(tmp_path / name), columns=4), expected)
    with pytest.raises(ValueError, match=rf"{name}.*(has 4 columns, and 5 were asked|bytes are not a multiple)"):
        read_points(tmp_path / name, columns=5)


def test_other_properties_of_a_ply(tmp_path: Path) -> None:
    """Elements before the vertices are passed over; x, y and z come first wherever they stand."""
    before = "element camera 2\nproperty short a\nproperty uint b\n"
    path = tmp_path / "a.ply"
    path.write_bytes(ply("binary_little_endian", bytes(12) + ply_rows("<"), before=before))
    assert torch.equal(read_points(path)[:, :3], torch.from_numpy(POINTS[:, :3]))
    path.write_bytes(
        b"ply\r\nformat ascii 1.0\r\nelement vertex 1\r\nproperty uchar i\r\nproperty float z\r\nproperty float y\r\n"
        b"property float x\r\nend_header\r\n7 3 2 1\r\n"
    )
    assert read_points(path).tolist() == [[1, 2, 3, 7]]


def test_colours_and_padding_of_a_pcd(tmp_path: Path) -> None:
    path = tmp_path / "a.pcd"
    header = "VERSION .7\nFIELDS _ rgb z y x normal\nSIZE 1 4 4 4 8 4\nTYPE U {0} F F F F\nCOUNT 3 1 1 1 1 2\n"
    header += "WIDTH 1\nHEIGHT 1\nPOINTS 1\nDATA binary\n"
    body = struct.pack("<3BIffd2f", 9, 9, 9, 10 << 16 | 20 << 8 | 30, 3, 2, 1, 0.5, -0.5)
    for kind in "FU":
        path.write_bytes(header.format(kind).encode() + body)
        assert read_points(path).tolist() == [[1, 2, 3, 10, 20, 30, 0.5, -0.5]]
    text = struct.unpack("<f", struct.pack("<I", 10 << 16 | 20 << 8 | 30))[0]
    ascii_header = "FIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F {0}\nPOINTS 1\nDATA ascii\n1 2 3 {1}\n"
    for kind, value in (("F", repr(text)), ("U", str(10 << 16 | 20 << 8 | 30))):
        path.write_text(ascii_header.format(kind, value))
        assert read_points(path).tolist() == [[1, 2, 3, 10, 20, 30]]


def test_lzf_copies_what_came_before() -> None:
    """Literals, a short copy, one that runs into itself, and a long one with a byte of its own for the length."""
    stream = bytes([3]) + b"abcd" + bytes([1 << 5, 3]) + bytes([4 << 5, 0]) + bytes([7 << 5, 20, 6])
    plain = b"abcd" + b"abc" + b"c" * 6
    for _ in range(29):
        plain += plain[-7:-6]
    assert decompress_lzf(stream, len(plain)) == plain
    far = bytes(range(256)) * 3
    stream = lzf_literals(far) + bytes([(1 << 5) | 2, 0xFF])
    assert decompress_lzf(stream, len(far) + 3) == far + far[:3]
    for broken in (stream[:-1], bytes([1 << 5, 0]), bytes([31]) + b"x"):
        with pytest.raises(ValueError, match="is corrupted"):
            decompress_lzf(broken, len(far) + 3)


def test_a_surface_is_sampled_by_area(tmp_path: Path) -> None:
    path = tmp_path / "box.off"
    path.write_text(CUBE.replace("1 0 0\n1 1 0", "3 0 0\n3 1 0").replace("1 0 1\n1 1 1", "3 0 1\n3 1 1"))
    points = read_points(path, count=20_000, seed=5)
    assert points.shape == (20_000, 3)
    assert torch.equal(points, read_points(path, count=20_000, seed=5))
    assert not torch.equal(points, read_points(path, count=20_000, seed=6))
    on = [(points[:, axis] == value) for axis, value in ((0, 0.0), (0, 3.0), (1, 0.0), (1, 1.0), (2, 0.0), (2, 1.0))]
    assert torch.stack(on).any(0).all()
    share = torch.stack(on).float().mean(1)
    torch.testing.assert_close(share, torch.tensor([1, 1, 3, 3, 3, 3]) / 14, rtol=0, atol=0.012)
    front = points[on[2]]  # uniform on a face
    torch.testing.assert_close(front.mean(0), torch.tensor([1.5, 0, 0.5]), rtol=0, atol=0.05)
    torch.testing.assert_close(front.std(0), torch.tensor([3, 0, 1]) / 12**0.5, rtol=0, atol=0.02)
    for head in ("OFF8 6 0\n", "OFF 8 6 0\n", "off\n8 6\n"):  # as a part of ModelNet40 has it
        path.write_text(CUBE.replace("OFF\n8 6 0\n", head))
        assert read_points(path, count=10).shape == (10, 3)


FAULTS = {
    "empty.ply": (b"", "is empty"),
    "no.ply": (b"plywood", "is not a PLY file"),
    "header.ply": (GOOD["ascii.ply"][:40], "is truncated: its header has no end"),
    "short.ply": (GOOD["little.ply"][:-30], r"is truncated: 3 vertices need 51 bytes, 26 are there"),
    "few.ply": (ply("ascii", b"1 2 3 4\n"), "is truncated: 3 vertices are announced, 1 are there"),
    "word.ply": (GOOD["ascii.ply"].replace(b"5.25", b"five"), "behind the header, line 2: 'five' is not a number"),
    "axes.ply": (GOOD["ascii.ply"].replace(b"float z", b"float w"), "its vertices have no z, but x, y, w, red"),
    "huge.ply": (ply("binary_little_endian", ply_rows("<"), 99_999_999_999), "is truncated: 99999999999 vertices need"),
    "nan.ply": (GOOD["ascii.ply"].replace(b"-4", b"nan"), r"1 of 3 points are not finite, the first is point 1, \[nan"),
    "type.ply": (
        GOOD["ascii.ply"].replace(b"uchar red", b"half red"),
        "line 8 of its header cannot be read: 'property",
    ),
    "none.ply": (ply("ascii", b"", 0), "has no points"),
    "no.pcd": (b"hello\n", "is not a PCD file, or truncated: its header has no FIELDS"),
    "short.pcd": (GOOD["binary.pcd"][:-1], "is truncated: 3 points need 48 bytes, 47 are there"),
    "few.pcd": (GOOD["ascii.pcd"].rsplit(b"\n", 2)[0], "is truncated: 3 points are announced, 2 are there"),
    "lzf.pcd": (GOOD["compressed.pcd"][:-1], "is truncated: 50 compressed bytes are announced, 49 are there"),
    "size.pcd": (pcd("binary_compressed", struct.pack("<II", 0, 47)), "is corrupted: the points need 48 bytes, 47"),
    "how.pcd": (pcd("zipped", b""), "DATA must be ascii, binary or binary_compressed, got 'zipped'"),
    "axes.pcd": (GOOD["binary.pcd"].replace(b"x y z", b"a b c"), "its points have no x, y, z, but a, b, c, intensity"),
    "kind.pcd": (GOOD["binary.pcd"].replace(b"TYPE F", b"TYPE Q"), "field 'x' is of type 'Q' and size '4'"),
    "no.off": (b"solid cube", "is not an OFF file"),
    "counts.off": (b"OFF\na b\n", "line 2: must be the counts of vertices, faces and edges, got 'a b'"),
    "short.off": (CUBE[:70].encode(), "is truncated: 8 vertices and 6 faces are announced"),
    "word.off": (CUBE.replace("0 1 1", "0 x 1").encode(), "line 11: 'x' is not a number"),
    "nan.off": (CUBE.replace("0 1 1", "0 nan 1").encode(), "line 11: a vertex is not finite"),
    "corner.off": (CUBE.replace("4 3 0 4 7", "4 3 0 4 8").encode(), r"line 17: a face's corners must be in \[0, 8\)"),
    "pair.off": (CUBE.replace("4 3 0 4 7", "2 3 0").encode(), "line 17: a face must be the number of its corners"),
    "flat.off": (b"OFF\n3 1 0\n0 0 0\n1 1 1\n2 2 2\n3 0 1 2\n", "its faces have no area to put points on"),
    "odd.bin": (bytes(17), "is not a Velodyne scan"),
    "either.bin": (bytes(80), r"its values suit both of the known layouts: tell how many columns"),
    "no.npy": (b"numpy?", "is not a numpy array, or corrupted"),
    "short.npy": (GOOD["array.npy"][:-1], r"is truncated: an array of shape \(3, 4\) needs 48 bytes, 47 are there"),
    "flat.npy": (saved("save", np.zeros(5)), r"must have the shape \(points, 3 or more columns\), got \(5,\)"),
    "text.npy": (saved("save", np.array([["a", "b", "c"]])), "must hold real numbers, got the dtype <U1"),
    "pickle.npy": (saved("save", np.array([[{}, {}, {}]])), "must hold real numbers, got the dtype object"),
    "no.npz": (b"zip?", "is not a numpy archive, or corrupted"),
    "short.npz": (GOOD["archive.npz"][:-30], "is not a numpy archive, or corrupted"),
    "two.npz": (saved("savez", a=POINTS, b=POINTS), "must hold one array, or one named points, got a, b"),
    "ragged.txt": (b"1 2 3\n1 2\n", "line 2: has 2 numbers, the lines before have 3"),
    "two.txt": (b"1 2\n", "line 1: a point needs x, y and z, has 2 numbers"),
    "large.txt": (b"1 2 1e60\n", "1 of 1 points are not finite"),
    "binary.xyz": (bytes(9), "is not text"),
    "remarks.xyz": (b"# nothing\n", "has no points"),
    "mesh.obj": (b"v 1 2 3", r"mesh.obj is of no known format: its name must end in one of .off, .ply"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_told(tmp_path: Path, name: str) -> None:
    data, text = FAULTS[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=rf"{name}.*{text}"):
        read_points(tmp_path / name)


def test_points_that_are_not_finite_can_be_left_out(tmp_path: Path) -> None:
    points = POINTS.copy()
    points[1, 2], points[0, 3] = np.inf, np.nan  # an intensity may be unknown
    (tmp_path / "a.npy").write_bytes(saved("save", points))
    with pytest.raises(ValueError, match=r"point 1, \[-4.0, 5.25, inf\]: pass invalid='drop' to leave such points out"):
        read_points(tmp_path / "a.npy")
    kept = read_points(tmp_path / "a.npy", invalid="drop")
    assert kept[:, :3].tolist() == POINTS[[0, 2], :3].tolist()
    (tmp_path / "b.npy").write_bytes(saved("save", np.full((3, 3), np.nan)))
    with pytest.raises(ValueError, match="has no points"):
        read_points(tmp_path / "b.npy", invalid="drop")


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing.ply"):
        read_points(tmp_path / "missing.ply")
    for options, text in (
        ({"invalid": "skip"}, "invalid must be 'raise' or 'drop', got 'skip'"),
        ({"count": 0}, "count must be at least 1, got 0"),
        ({"seed": -1}, "seed must not be negative, got -1"),
        ({"columns": 2}, "columns must be at least 3, for x, y and z, got 2"),
    ):
        with pytest.raises(ValueError, match=text):
            read_points(tmp_path / "a.ply", **options)


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("rounds", [150, pytest.param(1_000, marks=pytest.mark.slow)])
def test_mutated_bytes(tmp_path: Path, name: str, rounds: int) -> None:
    """Flipped, removed, doubled and foreign bytes: points that are finite, or an error that can be read."""
    random = np.random.default_rng(sorted(GOOD).index(name))
    path = tmp_path / name
    words = (b"nan", b"inf", b"1e999", b"-1", b"99999999999", b"\xff\xff\xff\x7f", b"\n", b"\0", b" ", b"list", b"0")
    told = 0
    for _ in range(rounds):
        data = bytearray(GOOD[name])
        for _ in range(int(random.integers(1, 5))):
            at = int(random.integers(0, len(data) + 1))
            kind = int(random.integers(0, 5))
            if kind == 0 and at < len(data):
                data[at] = int(random.integers(0, 256))
            elif kind == 1:
                del data[at : at + int(random.integers(1, 30))]
            elif kind == 2:
                data[at:at] = data[at : at + int(random.integers(1, 30))]
            elif kind == 3:
                data[at : at + int(random.integers(0, 4))] = words[int(random.integers(0, len(words)))]
            else:
                del data[at:]
            if not data:
                break
        path.write_bytes(data)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                points = read_points(path, count=16)
        except (ValueError, OSError) as error:
            told += 1
            text = str(error)
            assert name in text
            assert 20 < len(text) < 1200, text
            assert text.isprintable(), text
        else:
            assert points.dim() == 2
            assert points.shape[0] > 0
            assert points.shape[1] >= 3
            assert points[:, :3].isfinite().all()
    assert told > rounds // 10


def test_every_format_is_tested() -> None:
    assert {Path(name).suffix for name in GOOD} == set(POINT_FORMATS)
