"""The CUDA emulator finds deliberate mistakes, and finds none in kernels that are right."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
import torch
from emulator import build

KERNELS = build.EMULATOR / "kernels"
ALL_MODES = ("", "address", "thread")

RIGHT = {
    *("block_reduction", "dynamic_shared", "transpose", "histogram", "block_votes"),
    *("warp_scan", "shuffles", "warp_votes", "warp_memory", "warp_reductions"),
    *("grid_stride", "empty_grid", "impossible_shapes", "index_3d", "atomics", "hash_table"),
}

# Found because the order of threads is shuffled, and because shared memory starts as NaN.
WRONG_ANSWERS = {"missing_barrier", "missing_second_barrier", "missing_warp_sync", "uninitialised_shared", "early_copy"}

# Found by the emulator itself, with these words.
ERRORS = {
    "divergent_shuffle": r"divergent warp: .*warp_(ballot|shuffle_down) of mask 0xffffffff at .*buggy\.cu:\d+, while",
    "different_masks": r"(divergent warp: .*while|returned from the kernel, but) thread .* waits for it in "
    r"warp_shuffle_xor of mask 0xffff(0000|ffff)",
    "mask_without_self": r"warp_shuffle of mask 0x0000ffff at .*buggy\.cu:\d+, whose mask does not name its lane \d+",
    "exited_lane": r"returned from the kernel, but thread .* waits for it in warp_sync|"
    r"warp_sync of mask .* names lane 3: that thread has returned from the kernel",
    "partial_warp": r"which names lane 8: the block has no such thread",
    "misaligned_pack": r"thread .* moves a pack of 8 bytes, whose address is not a multiple of that",
    "divergent_barrier": r"divergent block barrier: .*block_sync at .* while .* waits in block_sync",
    "different_barriers": r"divergent block barrier: .*(block_sync.*block_any|block_any.*block_sync)",
    "deadlock": r"no thread can go on\n  kernel launched at .*buggy\.cu:\d+, grid \(1, 1, 1\) of blocks \(64, 1, 1\), "
    r"in block \(0, 0, 0\)\n  wait in warp_sync of mask 0xffffffff at .*buggy\.cu:\d+: threads 0, 32\n"
    r"  wait in block_sync at .*buggy\.cu:\d+: threads 1-31, 33-63\n",
    "lock": r"no thread wins its atomic_cas any more",
    "throwing": r"thread \(9, 0, 0\) threw an exception: thrown on purpose",
    "misaligned_copy": r"thread \(\d+, 0, 0\): an asynchronous copy from an address that is not a multiple of 16, at "
    r".*buggy\.cu:\d+",
    "copy_at_exit": r"thread \(\d+, 0, 0\) returned from the kernel with asynchronous copies under way",
    "too_much_shared": r"a block has at most 99 KiB of shared memory, asked for 101377 bytes",
    "too_much_together": r"at most 99 KiB of shared memory, asked for 98304 bytes beside FASTCV_SHARED arrays of 4000",
    "large_shared": r"FASTCV_SHARED arrays of 52000 bytes: a kernel has at most 48 KiB",
}

# Found by AddressSanitizer or UBSan, with these words.
OVERRUNS = {
    "shared_overrun": "heap-buffer-overflow",
    "static_shared_overrun": "index 64 out of bounds",
    "global_overrun": "heap-buffer-overflow",
}

# Found by ThreadSanitizer. The last three give right answers in any order.
RACES = {
    *("missing_barrier", "missing_second_barrier", "missing_warp_sync"),
    *("shuffle_for_barrier", "shared_race", "global_race"),
}


@cache
def program(mode: str) -> tuple[str, ...]:
    """The command that runs a case under a sanitizer ("" is none), or with the portable stack switch ("ucontext")."""
    if mode == "ucontext":
        return (str(build.build_cases("", ("-DFASTCV_EMULATOR_UCONTEXT",))),)
    path = str(build.build_cases(mode))
    if mode == "thread" and shutil.which("setarch") and subprocess.run(["setarch", "-R", "true"]).returncode == 0:
        # ThreadSanitizer does not know the memory layouts that much address randomisation leads to.
        return ("setarch", "-R", path)
    return (path,)


def run(mode: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*program(mode), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "TSAN_OPTIONS": "exitcode=66", "ASAN_OPTIONS": "exitcode=67", **environment},
    )


def marked_line(case: str) -> str:
    lines = (KERNELS / "buggy.cu").read_text().splitlines()
    (number,) = [number for number, line in enumerate(lines, 1) if line.endswith(f"// found: {case}")]
    return f"buggy.cu:{number}"


def test_every_case_is_tested() -> None:
    cases = set(run("").stdout.split())
    assert cases == RIGHT | WRONG_ANSWERS | set(ERRORS) | set(OVERRUNS) | RACES | {"recovery", "thread_order"}


@pytest.mark.parametrize(("mode", "seeds"), [("", 200), ("ucontext", 10), ("address", 20), ("thread", 1)])
@pytest.mark.parametrize("case", sorted(RIGHT))
def test_right_kernel_passes(case: str, mode: str, seeds: int) -> None:
    result = run(mode, case, 1, seeds)
    assert (result.stderr, result.stdout, result.returncode) == ("", f"right {seeds} wrong 0\n", 0)


@pytest.mark.parametrize("case", sorted(WRONG_ANSWERS))
def test_wrong_answers_show(case: str) -> None:
    result = run("", case, 1, 50)
    found = re.fullmatch(r"right \d+ wrong (\d+)\n", result.stdout)
    assert found is not None
    assert int(found[1]) >= 45, "nearly every order of the threads must show the mistake"


@pytest.mark.parametrize("mode", [*ALL_MODES, "ucontext"])
@pytest.mark.parametrize("case", sorted(ERRORS))
def test_impossible_collectives_are_reported(case: str, mode: str) -> None:
    for seed in range(1, 11 if mode == "" else 2):
        result = run(mode, case, seed)
        assert re.search(ERRORS[case], result.stderr), result.stderr
        assert "Sanitizer" not in result.stderr
        assert result.returncode == 3


@pytest.mark.parametrize("mode", ALL_MODES)
def test_launches_work_after_a_failed_one(mode: str) -> None:
    result = run(mode, "recovery")
    assert (result.stderr, result.stdout, result.returncode) == ("", "right 1 wrong 0\n", 0)


@pytest.mark.parametrize("case", sorted(OVERRUNS))
def test_address_sanitizer_finds_overruns(case: str) -> None:
    result = run("address", case)
    assert result.returncode != 0
    assert OVERRUNS[case] in result.stderr
    assert marked_line(case) in result.stderr


@pytest.mark.parametrize("case", sorted(RACES))
def test_thread_sanitizer_finds_races(case: str) -> None:
    result = run("thread", case)
    assert result.returncode == 66
    assert "WARNING: ThreadSanitizer: data race" in result.stderr
    assert marked_line(case) in result.stderr


def test_seed_decides_the_order_of_threads() -> None:
    orders = [run("", "thread_order", seed).stdout for seed in (1, 1, 2, 3)]
    assert orders[0] == orders[1]
    assert len(set(orders)) == 3
    threads = [int(word) for word in orders[0].split()[:64]]
    assert sorted(threads) == list(range(64))
    assert threads != sorted(threads)
    assert run("", "thread_order").stdout == orders[0], "the seed is 1 unless something else is asked for"
    assert run("", "thread_order", FASTCV_EMULATOR_SEED="2").stdout == orders[2]


def test_build_error_shows_the_compilers_words() -> None:
    with pytest.raises(build.BuildError, match=r"(?s)g\+\+.* -DFASTCV_VARIANT=1 .*error: "):
        build.build_cases("", ("-DFASTCV_VARIANT=1",))


def test_build_error_names_a_launcher_in_the_wrong_namespace(tmp_path: Path) -> None:
    source = tmp_path / "misplaced_cuda.cpp"
    call = "namespace fastcv { void scale_cuda(int); void scale() { scale_cuda(1); } }\n"
    source.write_text(call + "namespace fastcv::emulated { void scale_cuda(int) {} }\n")
    unit = build.Unit(source, (), ())
    for _ in range(2):  # a library that lacks something is not kept
        with build.lock(), pytest.raises(build.BuildError, match=r"fastcv::scale_cuda\(int\)\. .* in namespace fastcv"):
            build.build([unit], "misplaced.so", ("-shared",), "")


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
def test_kernels_are_cuda(tmp_path: Path) -> None:
    """The same sources compile as CUDA without a warning; with a GPU, the right ones give right answers there."""
    flags = ["-std=c++17", "--fmad=false", "-Werror", "all-warnings", f"-I{build.CSRC}", f"-I{build.EMULATOR.parent}"]
    architecture = "-arch=native" if torch.cuda.is_available() else "-arch=sm_80"
    target = tmp_path / "cases"
    sources = [*KERNELS.glob("*.cu"), KERNELS / "main.cpp"]
    command = ["nvcc", *flags, architecture, "-o", target, *sources]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    if not torch.cuda.is_available():
        return
    for case in sorted(RIGHT):
        answer = subprocess.run([target, case], capture_output=True, text=True, timeout=60)
        assert (answer.stderr, answer.stdout) == ("", "right 1 wrong 0\n"), case
