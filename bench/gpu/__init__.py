"""``bash bench/gpu.sh``: builds, tests, checks, measures and profiles the CUDA kernels on a GPU, in one command."""
