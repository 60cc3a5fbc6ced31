"""Builds the CUDA kernels as plain C++ on the emulator: the test module `_C_emulated`, and the emulator's own cases.

`python tests/emulator/build.py [--sanitize=address]` prints the path of the module. Objects are kept by a hash of all
that goes into them, under `~/.cache/fastcv-emulator` or `FASTCV_EMULATOR_CACHE`; `MAX_JOBS` limits the compilers that
run at once. Nothing here needs a CUDA toolkit.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import shlex
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
EMULATOR = ROOT / "tests" / "emulator"
MODULE_NAME = "_C_emulated"
KEEP_DAYS = 14
BINDINGS_AT_ONCE = 8

# Loops of kernels are short here and compiling is most of the time: -O1. No contraction, as nvcc is told.
COMMON_FLAGS = (
    *("-std=c++17", "-O1", "-g", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off"),
    *("-Wall", "-Wextra", "-Wno-unknown-pragmas"),
    *("-DFASTCV_EMULATED", f"-I{CSRC}", f"-I{EMULATOR.parent}"),
)
SANITIZER_FLAGS = {
    "": (),
    "address": ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"),
    "thread": ("-fsanitize=thread",),
}


class BuildError(RuntimeError):
    """A compiler or the linker failed; the message holds its command and output."""


@dataclass(frozen=True)
class Unit:
    """One source file, and what its object depends on besides."""

    source: Path
    flags: tuple[str, ...]
    headers: tuple[Path, ...]


def build_module(
    sanitize: str = "", name: str = MODULE_NAME, change: Callable[[list[Unit]], list[Unit]] = lambda units: units
) -> Path:
    """Returns the shared object of `_C_emulated`, whose "cuda" kernels take CPU tensors.

    With `sanitize="address"` it holds AddressSanitizer and UBSan: start Python with `LD_PRELOAD` set to
    `sanitizer_preload()`. Another module, with some of its units changed, gets a `name` of its own.
    """
    ops = sorted(path.name for path in (CSRC / "ops").iterdir() if path.is_dir())
    generated = cache_folder() / ("generated-" + digest(ops))
    flags = (
        *(f"-I{generated}", f"-isystem{_package_folder('pybind11')}/include", *_dlpack_flags()),
        *(f"-isystem{sysconfig.get_path('include')}", '-DFASTCV_VERSION="emulated"', "-fopenmp"),
    )
    core_headers = (*files(CSRC / "core", "**/*.h", "**/*.cuh"), *files(CSRC / "families", "*/*.h", "*/*.cuh"))
    units = [Unit(CSRC / "module.cpp", (*flags, f"-DFASTCV_MODULE_NAME={name}"), (generated / "ops.inc",))]
    units += [Unit(source, flags, core_headers) for source in files(CSRC / "core", "*.cpp")]
    for op in ops:
        # An op folder includes the core, families and itself, no other op.
        headers = (*core_headers, *files(CSRC / "ops" / op, "*.h", "*.cuh"), *files(EMULATOR, "*.h"))
        units += [Unit(source, flags, headers) for source in files(CSRC / "ops" / op, "*_cuda.cu")]
    units += emulator_units(sanitize)
    # Bindings several at a time, as the wheel's build takes them: most of their compile time is pybind11's own code.
    texts = {"ops.inc": "".join(f"FASTCV_OP({op})\n" for op in ops)}
    for first in range(0, len(ops), BINDINGS_AT_ONCE):
        folders = [CSRC / "ops" / op for op in ops[first : first + BINDINGS_AT_ONCE]]
        sources = [source for folder in folders for source in files(folder, "*_bind.cpp")]
        own = (header for folder in folders for header in files(folder, "*.h"))
        headers = (*core_headers, *own, *sources, *files(EMULATOR, "*.h"))
        texts[f"bindings_{first}.cpp"] = "".join(f'#include "{source.relative_to(CSRC)}"\n' for source in sources)
        units.append(Unit(generated / f"bindings_{first}.cpp", (*flags, "-O0"), headers))

    units = change(units)
    with lock():
        generated.mkdir(exist_ok=True)
        for file, text in texts.items():
            if not (generated / file).exists() or (generated / file).read_text() != text:
                (generated / file).write_text(text)
        file_name = name + str(sysconfig.get_config_var("EXT_SUFFIX"))
        return build(units, file_name, ("-shared", "-fopenmp"), sanitize)


def build_cases(sanitize: str = "", extra_flags: tuple[str, ...] = ()) -> Path:
    """Returns the program that runs the kernels of `kernels/`: `<program> <case> [first seed] [number of seeds]`."""
    kernels = EMULATOR / "kernels"
    headers = (*files(CSRC / "core", "*.h", "cuda/*"), *files(EMULATOR, "*.h"), *files(kernels, "*.h"))
    units = [Unit(source, extra_flags, headers) for source in files(kernels, "*.cpp", "*.cu")]
    units += [Unit(unit.source, (*unit.flags, *extra_flags), unit.headers) for unit in emulator_units(sanitize)]
    with lock():
        return build(units, "cases", (), sanitize)


def sanitizer_preload(sanitize: str = "address") -> str:
    """The value of `LD_PRELOAD` under which Python can load a module built with that sanitizer."""
    library = {"address": "libasan.so", "thread": "libtsan.so"}[sanitize]
    paths = [run([*_compiler(), f"-print-file-name={name}"]).strip() for name in (library, "libstdc++.so")]
    return " ".join(paths)


def cache_folder() -> Path:
    """Where objects are kept."""
    return Path(os.environ.get("FASTCV_EMULATOR_CACHE", "~/.cache/fastcv-emulator")).expanduser()


def emulator_units(sanitize: str) -> list[Unit]:
    # ThreadSanitizer is to judge the kernels and not the scheduler, which is told to call its fiber interface instead.
    flags = ("-fno-sanitize=all", "-DFASTCV_EMULATOR_TSAN") if sanitize == "thread" else ()
    headers = (*files(EMULATOR, "*.h"), *files(CSRC / "core" / "cuda", "*.h"))
    return [Unit(source, flags, headers) for source in files(EMULATOR, "*.cpp")]


def build(units: list[Unit], name: str, link_flags: tuple[str, ...], sanitize: str) -> Path:
    """Compiles what is missing and links. The caller holds the lock."""
    sanitizer = SANITIZER_FLAGS[sanitize]
    commands: list[list[str]] = []
    objects: list[Path] = []
    for unit in units:
        arguments = [*COMMON_FLAGS, *sanitizer, *unit.flags, "-x", "c++", "-c", str(unit.source)]
        target = cache_folder() / "objects" / f"{unit.source.stem}-{_unit_digest(unit, arguments)}.o"
        objects.append(target)
        if not still_there(target):
            commands.append([*_compiler(), *arguments, "-o", str(target)])
    with compilers() as pool:
        list(pool.map(_run_for_last_argument, commands))

    link = [*_compiler(), *sanitizer, *link_flags, *map(str, objects)]
    output = cache_folder() / "linked" / digest(link) / name
    if not still_there(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        _run_for_last_argument([*link, "-o", str(output)])
        if "-shared" in link_flags:
            _check_defined(output)
    _forget_old_files()
    return output


def _check_defined(library: Path) -> None:
    """Raises for functions of fastcv that the linker has left for later: Python would say their mangled names."""
    symbols = [line.strip() for line in run(["nm", "-D", "--undefined-only", "-C", str(library)]).splitlines()]
    missing = [symbol.removeprefix("U ") for symbol in symbols if symbol.startswith("U fastcv::")]
    if missing:
        library.unlink()
        raise BuildError(
            f"called but defined nowhere: {', '.join(missing)}. The function <name>_cuda that launches an op's kernels "
            "stands in namespace fastcv, behind fastcv::FASTCV_VARIANT; bind_<folder> is named as its folder is: "
            "see docs/adding-an-op.md"
        )


def compilers() -> ThreadPoolExecutor:
    """As many threads as compilers may run at once."""
    return ThreadPoolExecutor(int(os.environ.get("MAX_JOBS", 0)) or os.cpu_count() or 1)


def _run_for_last_argument(command: list[str]) -> None:
    """Runs a command whose last argument is its output file, which appears only when it is whole."""
    target = Path(command[-1])
    partial = target.with_name(target.name + ".partial")
    run([*command[:-1], str(partial)])
    partial.replace(target)


def run(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise BuildError(f"{shlex.join(command)}\n{result.stdout}{result.stderr}")
    return result.stdout


@functools.cache
def _compiler() -> tuple[str, ...]:
    command = shlex.split(os.environ.get("CXX", "g++"))
    if shutil.which(command[0]) is None:
        raise BuildError(f"the C++ compiler {command[0]!r} was not found; set CXX")
    return tuple(command)


@functools.cache
def _compiler_version() -> str:
    return run([*_compiler(), "--version"])


def _unit_digest(unit: Unit, arguments: list[str]) -> str:
    contents = [file_digest(path) for path in (unit.source, *unit.headers)]
    return digest([_compiler_version(), *_compiler(), *map(_without_environment, arguments), *contents])


def _without_environment(argument: str) -> str:
    """The argument with packages by version in place of folder: environments that have the same share objects."""
    for package, folder in _installed_packages().items():
        argument = argument.replace(folder, package)
    return argument


@functools.cache
def _installed_packages() -> dict[str, str]:
    """Name and version of the packages whose headers are included, and their folders."""
    folders = {}
    for package, distribution in (("pybind11", "pybind11"), ("tvm_ffi", "apache-tvm-ffi"), ("torch", "torch")):
        with contextlib.suppress(BuildError, importlib.metadata.PackageNotFoundError):
            folders[f"{package}-{importlib.metadata.version(distribution)}"] = str(_package_folder(package))
    return folders


def file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def files(folder: Path, *patterns: str) -> tuple[Path, ...]:
    return tuple(sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}))


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise BuildError(f"the Python package {package} was not found")
    return Path(spec.submodule_search_locations[0])


def _dlpack_flags() -> tuple[str, ...]:
    """dlpack.h comes with several packages; the last place searched, for their folders hold much else."""
    for package, folder in (("tvm_ffi", "include/dlpack"), ("tvm_ffi", "include"), ("torch", "include/ATen")):
        with contextlib.suppress(BuildError):
            include = _package_folder(package) / folder
            if (include / "dlpack.h").exists():
                return ("-idirafter", str(include))
    raise BuildError("dlpack.h was not found: install apache-tvm-ffi or torch")


def still_there(path: Path) -> bool:
    """Whether the file exists; if so it counts as used today."""
    if not path.exists():
        return False
    os.utime(path)
    return True


def _forget_old_files() -> None:
    oldest = time.time() - KEEP_DAYS * 86400
    for path in (
        *files(cache_folder() / "objects", "*"),
        *files(cache_folder() / "linked", "*/*"),
        *files(cache_folder() / "ptx", "*"),
    ):
        if path.stat().st_mtime < oldest:
            path.unlink()


@contextlib.contextmanager
def lock() -> Iterator[None]:
    """One build at a time: test workers that come together wait for the first and find its objects."""
    (cache_folder() / "objects").mkdir(parents=True, exist_ok=True)
    with (cache_folder() / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the emulated module and print its path.")
    parser.add_argument("--sanitize", choices=sorted(SANITIZER_FLAGS), default="")
    sanitize = parser.parse_args().sanitize
    print(build_module(sanitize))
    if sanitize:
        print(f"LD_PRELOAD={sanitizer_preload(sanitize)!r}")


if __name__ == "__main__":
    main()
