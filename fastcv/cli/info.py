"""``fastcv info``: the facts to paste into a bug report. Needs only torch."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from fastcv._threads import usable_cores
from fastcv.cli.speed import load_torchvision

BF16_PRODUCTS = {
    "instruction": "products by AVX512-BF16",
    "float32": "products in float32",
    "emulated": "products by AVX512-BF16, emulated: slow",
}


def info() -> None:
    """Print what to paste into a bug report: versions, machine and build."""
    print("\n".join(info_lines()))


def info_lines() -> list[str]:
    """Return lines of plain text: a column of labels and a column of values."""
    facts = [*build_facts(), *package_facts(), *gpu_facts(), *machine_facts()]
    width = max(len(label) for label, _ in facts)
    return [f"{label:<{width}}  {value}" for label, value in facts]


def package_facts() -> list[tuple[str, str]]:
    """Return the versions of Python, torch and torchvision."""
    python = f"{platform.python_version()} ({platform.python_implementation()})"
    return [("Python", python), ("torch", torch.__version__), ("torchvision", torchvision_fact())]


def torchvision_fact() -> str:
    """Return torchvision's version, and why it does not load where it was built for another torch."""
    try:
        number = version("torchvision")
    except PackageNotFoundError:
        return "not installed"
    found = load_torchvision()
    return f"{number}, but {found}" if isinstance(found, str) else number


def machine_facts() -> list[tuple[str, str]]:
    """Return platform, processor and threads."""
    return [
        ("platform", platform.platform()),
        ("CPU", cpu_name()),
        ("cores", f"{usable_cores()} usable of {os.cpu_count()}"),
        ("threads", str(torch.get_num_threads())),
    ]


def build_facts() -> list[tuple[str, str]]:
    """Return how the compiled module was built, and which of its variants this CPU uses."""
    from fastcv.ops import build_info

    build = build_info()
    cuda = f"CUDA {build['cuda_version']}, architectures {build['cuda_architectures']}" if build["cuda"] else "no CUDA"
    return [
        ("fastcv", str(build["version"])),
        ("compiler", str(build["compiler"])),
        ("CPU variant", f"{build['cpu_variant']} (available: {', '.join(build['cpu_variants'])})"),
        ("bf16", BF16_PRODUCTS[build["bf16_products"]]),
        ("OpenMP", "yes" if build["openmp"] else "no"),
        ("fastcv with", cuda),
    ]


def gpu_facts() -> list[tuple[str, str]]:
    """Return torch's CUDA version and the GPUs."""
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    facts = [("torch with", built)]
    if not torch.cuda.is_available():
        return [*facts, ("GPUs", "none that torch can use")]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        capability = f"{properties.major}.{properties.minor}"
        memory = f"{properties.total_memory / 2**30:.0f} GiB"
        facts.append((f"GPU {index}", f"{properties.name}, compute capability {capability}, {memory}"))
    return facts


def cpu_name() -> str:
    """Return the name of the processor, where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        match = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        if match:
            return match[1].strip()
    return platform.processor() or platform.machine()
