#!/usr/bin/env bash
# All that is to be known of a GPU, in one command: bash bench/gpu.sh
#
# Builds fastcv for the GPU at hand, runs the tests that need one and compute-sanitizer's four tools, measures the CUDA
# workloads beside their peers, looks at the slowest five with ncu, and writes one JSON and one table. Needs python3 with
# torch, torchvision, pytest, pytest-benchmark, pytest-xdist, scikit-build-core, pybind11 and ninja, and CUDA's nvcc,
# compute-sanitizer and ncu; a tool that is missing leaves out its part. It installs nothing outside build/gpu.
#
# Nine minutes at most (--minutes). What did not fit is done by the same command again: parts that are done stay done
# until a source changes. --dry-run shows the parts, --help the rest.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" -m bench.gpu "$@"
