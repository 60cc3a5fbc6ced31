"""Builds `_C_ptx`: the host code of the .cu files as in the emulator, with the kernels that nvcc has made of them.

`python tests/ptx/build.py` prints the path of the module. nvcc writes PTX, `translate.py` turns it into C++, which is
compiled like the rest and kept beside it by content: see `tests/emulator/build.py`.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(TESTS))

from emulator.build import (  # noqa: E402
    CSRC,
    EMULATOR,
    Unit,
    build,
    build_module,
    cache_folder,
    compilers,
    digest,
    emulator_units,
    file_digest,
    files,
    lock,
    run,
    still_there,
)

PTX = TESTS / "ptx"
MODULE_NAME = "_C_ptx"
NVCC_FLAGS = (
    "-std=c++17",
    "-O3",
    "-DNDEBUG",
    "--fmad=false",
    f"-I{CSRC}",
    f"-I{TESTS}",
)
FIXED_FLAGS = {
    # Host code is short; the kernels in it, which nobody runs, need not be fast.
    "host": ("-DFASTCV_PTX", "-O0", "-g0", "-w"),
    "kernels": ("-g0", "-w"),
    "arithmetic": ("-frounding-math", "-O2"),
    "runtime": ("-O2",),
}


def nvcc() -> str | None:
    """The path of nvcc, which this backend needs."""
    return shutil.which("nvcc")


def build_ptx_module() -> Path:
    """Returns the shared object of `_C_ptx`."""
    return build_module("", MODULE_NAME, with_translated_kernels)


def with_translated_kernels(units: list[Unit]) -> list[Unit]:
    """The units of the emulated module, with the host code of each .cu file and its translated kernels in its place."""
    kernels = [unit for unit in units if unit.source.suffix == ".cu"]
    kept = [
        replace(unit, flags=(*unit.flags, "-DFASTCV_PTX"), headers=(*unit.headers, *headers()))
        if unit.source.name == "tensor.cpp"
        else unit
        for unit in units
        if unit not in kernels
    ]
    with lock(), compilers() as pool:
        made = list(pool.map(translated_units, kernels))
    return [*kept, *(unit for units in made for unit in units), *runtime_units()]


def runtime_units() -> list[Unit]:
    """What translated kernels call."""
    shared = (*headers(), *files(EMULATOR, "*.h"))
    return [
        Unit(source, FIXED_FLAGS["arithmetic" if source.stem == "arithmetic" else "runtime"], shared)
        for source in files(PTX, "*.cpp")
    ]


def headers() -> tuple[Path, ...]:
    return files(PTX, "*.h")


def translated_units(unit: Unit) -> list[Unit]:
    """For a .cu file: the host code, which knows the translated kernels, and those in files of about equal size."""
    stem = stem_of(unit.source)
    pieces, names = translated(write_ptx_of_op(unit.source), stem)
    text = host_code(unit.source, stem, names)
    host = cache_folder() / "ptx" / f"{stem}_host-{digest([text])[:12]}.cpp"
    if not still_there(host):
        host.write_text(text)
    return [Unit(host, (*unit.flags, *FIXED_FLAGS["host"]), (unit.source, *unit.headers, *headers())), *pieces]


def build_cases(sources: list[Path]) -> tuple[Path, list[str]]:
    """A library with the kernels of files of PTX or CUDA, launched through `cases/driver.cpp`, and their names.

    A kernel's number is the place of its name.
    """
    units, names, entries = [], [], []
    shared = (*headers(), *files(EMULATOR, "*.h"))
    with lock():
        for source in sources:
            ptx = source if source.suffix == ".ptx" else write_ptx(source, files(CSRC / "core", "*.h", "cuda/*"))
            pieces, found = translated(ptx, source.stem)
            units += pieces
            names += found
            entries += [f"{source.stem}_entry_{i}" for i in range(len(found))]
        lines = ['#include "ptx/runtime.h"', "namespace fastcv::ptx {", f"extern const Entry {', '.join(entries)};"]
        lines += [
            "extern const Entry* const cases[];",
            f"const Entry* const cases[] = {{&{', &'.join(entries)}}};",
            "}",
        ]
        table = cache_folder() / "ptx" / f"cases-{digest(entries)}.cpp"
        table.write_text("\n".join(lines) + "\n")
        units += [Unit(table, ("-w",), shared), Unit(PTX / "cases" / "driver.cpp", (), shared)]
        return build([*units, *runtime_units(), *emulator_units("")], "cases.so", ("-shared",), ""), names


def write_ptx_of_op(source: Path) -> Path:
    """The file of PTX that nvcc makes of an op's .cu file."""
    core = (*files(CSRC / "core", "**/*.h", "**/*.cuh"), *files(CSRC / "families", "*/*.h", "*/*.cuh"))
    return write_ptx(source, (*core, *files(source.parent, "*.h", "*.cuh")))


def write_ptx(source: Path, read: tuple[Path, ...]) -> Path:
    """The file of PTX that nvcc makes of a .cu file, which includes some of the headers `read`."""
    contents = [file_digest(path) for path in (source, *read)]
    flags = [*NVCC_FLAGS, f"-arch={architecture_of(source)}", "-ptx"]
    name = f"{stem_of(source)}-{digest([nvcc_version(), *flags, *contents])[:12]}.ptx"
    target = cache_folder() / "ptx" / name
    if not still_there(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.{os.getpid()}")
        run(["nvcc", *flags, str(source), "-o", str(partial)])
        partial.replace(target)
    return target


def architecture_of(source: Path) -> str:
    """For sm_90 nvcc writes the same PTX as for sm_80, but for the line that names the target."""
    return "sm_90a" if source.name.endswith("_wgmma_cuda.cu") else "sm_80"


def stem_of(source: Path) -> str:
    """What names of its kernels begin with."""
    return source.stem.removesuffix("_cuda")


@functools.cache
def nvcc_version() -> str:
    return run(["nvcc", "--version"])


def translated(ptx: Path, stem: str) -> tuple[list[Unit], list[str]]:
    """The C++ made of a file of PTX, and the names of its kernels there."""
    translator = [
        file_digest(PTX / f"{name}.py") for name in ("parse", "instructions", "effects", "warpgroups", "translate")
    ]
    folder = cache_folder() / "ptx"
    made = folder / f"{stem}-{digest([file_digest(ptx), *translator])[:12]}.json"
    if not still_there(made):
        # A process of its own: a translation keeps Python busy, and there are as many at once as there are compilers.
        run([sys.executable, str(PTX / "translate.py"), str(ptx), stem, str(folder), str(made)])
    names = json.loads(made.read_text())
    shared = (*headers(), *files(EMULATOR, "*.h"))
    sources = [folder / name for name in names["files"]]
    if not all(map(still_there, sources)):  # forgotten: it is used less often than this list
        made.unlink()
        return translated(ptx, stem)
    return [Unit(source, FIXED_FLAGS["kernels"], shared) for source in sources], names["kernels"]


def host_code(source: Path, stem: str, names: list[str]) -> str:
    """The .cu file, and a table that leads from the address of each of its kernels to the translation."""
    lines = [f'#include "{source.relative_to(CSRC)}"', "", '#include "ptx/launch.h"', "", "namespace fastcv::ptx {"]
    for i, kernel in enumerate(kernel_expressions(names)):
        lines.append(f"extern const Entry {stem}_entry_{i};")
        lines.append(f"static const Translated translated_{i}((const void*)&{kernel}, {stem}_entry_{i});")
    return "\n".join([*lines, "}", ""])


def kernel_expressions(names: list[str]) -> list[str]:
    """From names in PTX to C++ that names the same kernels where the emulator's compiler sees them."""
    result = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    return [kernel_expression(text) for text in result.stdout.splitlines()]


def kernel_expression(demangled: str) -> str:
    """void fastcv::cuda::(anonymous namespace)::k<(bool)1>(float*) -> fastcv::emulated::k<(bool)1>"""
    text = demangled.replace("(anonymous namespace)::", "").replace("fastcv::cuda::", "fastcv::emulated::")
    depth = 0
    for position in range(len(text) - 1, -1, -1):  # back over the parameters
        depth += {")": 1, "(": -1}.get(text[position], 0)
        if depth == 0:
            return re.sub(r"^void ", "", text[:position])
    raise ValueError(f"{demangled!r} is not the name of a kernel")


if __name__ == "__main__":
    print(build_ptx_module())
