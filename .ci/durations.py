"""How long each step of CI took, beside its budget; fails where a step takes three times as long.

    python .ci/durations.py STEPS    # lines "second name" at which each step began, the last one is the end

The budget is .ci/budget.txt, in seconds on two quiet cores. A step without a line there is an error: add one.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

SLACK = 3  # machines are shared, and differ by a factor of two


def read(path: Path) -> list[tuple[int, str]]:
    """The lines "number name" of a file."""
    rows = (line.split() for line in path.read_text().splitlines() if line and not line.startswith("#"))
    return [(int(number), name) for number, name in rows]


def main() -> None:
    steps = read(Path(sys.argv[1]))
    budget = {name: seconds for seconds, name in read(Path(__file__).with_name("budget.txt"))}
    over = []
    for (start, name), (end, _) in itertools.pairwise(steps):
        print(f"{name:12} {end - start:5} s of {budget[name]}")
        if end - start > SLACK * budget[name]:
            over.append(name)
    total = steps[-1][0] - steps[0][0]
    print(f"{'together':12} {total:5} s of {sum(budget.values())}")
    if over:
        sys.exit(f"over three times the budget: {', '.join(over)}. Make them shorter, or say why in .ci/budget.txt")


if __name__ == "__main__":
    main()
