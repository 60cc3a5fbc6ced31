"""Every operator once on a GPU with small inputs, and its gradient: `python tests/once_each.py`.

For compute-sanitizer (bench/gpu.sh), under which the tests would take hours. The inputs are those of tests/cases, in
every floating dtype that the operator takes, and once more as large as the cases have them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from op_case import Arguments, OpCase, all_cases, map_tensors, tensors_of

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def placed(arguments: Arguments, device: str, dtype: torch.dtype) -> Arguments:
    """The same arguments on a device, floating tensors in a dtype."""
    found: Arguments = map_tensors(
        arguments, lambda tensor: tensor.detach().to(device, dtype if tensor.is_floating_point() else tensor.dtype)
    )
    return found


def results(case: OpCase, arguments: Arguments) -> Iterator[torch.Tensor]:
    """What an operator returns, and the gradients of those arguments that get one."""
    wanted = [tensor for name in case.differentiable if name in arguments for tensor in tensors_of(arguments[name])]
    wanted = [tensor.requires_grad_() for tensor in wanted if tensor.is_floating_point()]
    values = tensors_of(case.function(**arguments))
    yield from (value.detach() for value in values)
    smooth = [value for value in values if value.requires_grad]
    if wanted and smooth:
        grads = torch.autograd.grad([value.float().sum() for value in smooth], wanted, allow_unused=True)
        yield from (grad for grad in grads if grad is not None)


def main(device: str) -> int:
    """Call all; returns the exit code."""
    calls = 0
    for case in all_cases():
        samples = [(case.sample(0), dtype) for dtype in DTYPES]
        if case.large is not None:
            samples.append((case.large(), torch.float32))
        for arguments, dtype in samples:
            try:
                list(results(case, placed(arguments, device, dtype)))
            except (TypeError, NotImplementedError) as error:
                print(f"{case.name}: {str(dtype).removeprefix('torch.')} is refused: {error}")
                continue
            calls += 1
    if device == "cuda":
        torch.cuda.synchronize()
    print(f"{calls} calls")
    return 0 if calls else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "cuda"))
