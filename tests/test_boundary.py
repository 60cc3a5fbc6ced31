"""What fastcv shares with torch: the exchange API, OpenMP, the dispatcher; and what it says when something is amiss."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from fastcv import _C
from fastcv.ops import box_iou, build_info, generalized_box_iou, nms, roi_align


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parent,  # not the root, whose source folder would shadow the installed package
        env={**os.environ, **environment},
    )


def test_old_torch_is_named() -> None:
    result = run("""
        import torch
        del torch.Tensor.__dlpack_c_exchange_api__
        import fastcv
    """)
    assert result.returncode != 0
    assert "ImportError: fastcv needs torch >= 2.10" in result.stderr
    assert torch.__version__ in result.stderr


@pytest.mark.parametrize("variant", build_info()["cpu_variants"])
def test_cpu_variant_is_forced_by_the_environment(variant: str) -> None:
    result = run("import fastcv; print(fastcv.ops.build_info()['cpu_variant'])", FASTCV_CPU_VARIANT=variant)
    assert result.stdout.strip() == variant, result.stderr


SHOW_PRODUCTS = """
    from fastcv.ops import build_info
    print(build_info()["cpu_variant"], build_info()["bf16_products"])
"""


@pytest.mark.skipif("avx512" not in build_info()["cpu_variants"], reason="this processor lacks AVX-512")
def test_products_of_bfloat16_are_forced_by_the_environment() -> None:
    has_instruction = "avx512_bf16" in build_info()["cpu_variants"]
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else None
    assert flags is None or has_instruction == ("avx512_bf16" in flags)
    for forced, expected in (
        ("", "avx512_bf16 instruction" if has_instruction else "avx512 float32"),  # never its twin by itself
        ("avx512", "avx512 float32"),
        ("avx512_bf16", f"avx512_bf16 {'instruction' if has_instruction else 'emulated'}"),
        ("avx2", "avx2 float32"),
    ):
        result = run(SHOW_PRODUCTS, FASTCV_CPU_VARIANT=forced)
        assert result.stdout.strip() == expected, result.stderr


def test_unknown_cpu_variant_is_refused() -> None:
    result = run("import fastcv", FASTCV_CPU_VARIANT="sse9")
    assert result.returncode != 0
    assert "FASTCV_CPU_VARIANT must be baseline, avx2, avx512 or avx512_bf16, got sse9" in result.stderr
    with pytest.raises(ValueError, match="variant must be 'baseline', 'avx2', 'avx512' or 'avx512_bf16', got 'sse9'"):
        _C.set_cpu_variant("sse9")


@pytest.mark.skipif(not build_info()["openmp"], reason="built without OpenMP")
def test_one_openmp_runtime_shared_with_torch() -> None:
    result = run("""
        import fastcv, torch
        from fastcv.ops import roi_align
        boxes = torch.tensor([[0.0, 1, 1, 30, 30]]).repeat(400, 1)
        threads = lambda: len(__import__("os").listdir("/proc/self/task"))
        x = torch.randn(1, 64, 32, 32)
        torch.set_num_threads(1)
        roi_align(x, boxes, 7)
        before = threads()
        roi_align(x, boxes, 7)
        alone = threads() - before
        torch.set_num_threads(3)
        roi_align(x, boxes, 7)
        print(alone, threads() - before)
        print(sorted({line.split()[-1] for line in open("/proc/self/maps") if "gomp" in line or "iomp" in line}))
    """)
    alone, together = result.stdout.splitlines()[0].split()
    assert alone == "0", result.stderr
    assert together == "2"
    libraries = result.stdout.splitlines()[1]
    assert libraries.count("omp") == 1, libraries


@pytest.mark.parametrize("name", ["_are_functorch_transforms_active", "_len_torch_dispatch_stack"])
def test_without_a_private_guard_results_are_the_same(name: str) -> None:
    script = """
        import torch
        guard = torch._C.{name}
        {delete}
        import fastcv.ops._call as call
        torch._C.{name} = guard
        from fastcv.ops import roi_align
        torch.manual_seed(0)
        x = torch.randn(2, 1, 3, 8, 8, requires_grad=True)
        boxes = torch.tensor([[0.0, 1, 1, 5, 5]])
        roi_align(x[0], boxes, 2).square().sum().backward()
        print(x.grad.sum().item(), torch.vmap(lambda t: roi_align(t, boxes, 2))(x).sum().item(), flush=True)
        print(call.HAS_GUARDS)
    """
    whole = run(script.format(name=name, delete="")).stdout.splitlines()
    without = run(script.format(name=name, delete=f"del torch._C.{name}")).stdout.splitlines()
    assert whole[0] == without[0]
    assert (whole[1], without[1]) == ("True", "False")


def test_a_parameter_and_a_subclass_are_tensors() -> None:
    class Tagged(torch.Tensor):
        pass

    x = torch.randn(1, 3, 8, 8)
    boxes = torch.tensor([[0.0, 1, 1, 5, 5]])
    expected = roi_align(x, boxes, 2)
    output = roi_align(torch.nn.Parameter(x), boxes, 2)
    assert torch.equal(output, expected)
    assert output.requires_grad
    tagged = roi_align(x.as_subclass(Tagged), boxes, 2)
    assert torch.equal(tagged.as_subclass(torch.Tensor), expected)


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_FILL = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(_DLTensor))
_STREAM = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int32, ctypes.c_int32, ctypes.POINTER(ctypes.c_void_p))


class _ExchangeApi(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("previous", ctypes.c_void_p),
        ("allocate", ctypes.c_void_p),
        ("managed_from", ctypes.c_void_p),
        ("managed_to", ctypes.c_void_p),
        ("view_from", _FILL),
        ("stream", _STREAM),
    )


def exchange_type(device_type: int, shape: tuple[int, ...], data: int, major: int = 1) -> type:
    """Make a type whose instances claim, through the exchange API, to be float32 tensors as described.

    What they allocate is of the same kind.
    """
    sizes = (ctypes.c_int64 * len(shape))(*shape)

    def fill(_: int, out: ctypes._Pointer[_DLTensor]) -> int:
        tensor = out.contents
        tensor.data, tensor.device_type, tensor.device_id = data, device_type, 0
        tensor.ndim, tensor.code, tensor.bits, tensor.lanes = len(shape), 2, 32, 1
        tensor.shape, tensor.strides, tensor.byte_offset = sizes, None, 0
        return 0

    def stream(_: int, __: int, out: ctypes._Pointer[ctypes.c_void_p]) -> int:
        out[0] = None
        return 0

    api = _ExchangeApi(major, 3, None, None, None, None, _FILL(fill), _STREAM(stream))
    new_capsule = ctypes.pythonapi.PyCapsule_New
    new_capsule.restype = ctypes.py_object
    new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    capsule = new_capsule(ctypes.addressof(api), b"dlpack_exchange_api", None)

    def new_empty_strided(_: object, shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype) -> object:
        return exchange_type(device_type, shape, data, major)()

    return type(
        "Foreign",
        (),
        {"__dlpack_c_exchange_api__": capsule, "kept": (api, sizes), "new_empty_strided": new_empty_strided},
    )


def call_with(device_type: int, data: int = 4096, major: int = 1) -> None:
    input = exchange_type(device_type, (1, 2, 4, 4), data, major)()
    boxes = exchange_type(device_type, (1, 5), data, major)()
    _C.roi_align(input, boxes, 2, 2, 1.0, 2, False)


def test_cuda_tensor_where_cuda_cannot_run() -> None:
    """A CPU-only build says so; a CUDA build without a GPU passes on what the driver says."""
    if torch.cuda.is_available():
        pytest.skip("CUDA runs here")
    expected = "cannot use the CUDA device" if build_info()["cuda"] else "was built without CUDA"
    with pytest.raises(RuntimeError, match=expected):
        call_with(device_type=2)


def test_other_devices_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a tensor on cpu or cuda, got DLPack device type 8"):
        call_with(device_type=8)


def test_a_tensor_without_memory_is_refused() -> None:
    with pytest.raises(TypeError, match="expected a tensor with memory of its own"):
        call_with(device_type=1, data=0)


def test_another_version_of_the_exchange_api_is_refused() -> None:
    with pytest.raises(TypeError, match="incompatible DLPack exchange API"):
        call_with(device_type=1, major=2)


@pytest.mark.filterwarnings("ignore")  # torch warns of both
@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.quint8), "a quantized one of dtype quint8"),
        (lambda t: torch.nested.nested_tensor([t]), "a nested one"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(kind: Any, text: str) -> None:
    boxes = torch.tensor([[1.0, 1, 4, 4], [2, 2, 5, 5]])
    calls = {
        "boxes": [lambda t: nms(kind(t), torch.ones(2), 0.5)],
        "scores": [lambda t: nms(t, kind(torch.ones(2)), 0.5)],
        "boxes1": [lambda t: box_iou(kind(t), t), lambda t: generalized_box_iou(kind(t), t)],
        "input": [lambda t: roi_align(kind(torch.ones(1, 1, 6, 6)), torch.ones(1, 5), 2)],
    }
    for name, functions in calls.items():
        for function in functions:
            with pytest.raises(TypeError, match=f"^{name} must be a dense tensor, got {text}$"):
                function(boxes)
