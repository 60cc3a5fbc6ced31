"""Whole networks by fastcv, PyTorch, ONNX Runtime and OpenVINO: ``python -m bench.models.peers [MODEL ...]``.

Prints the rows of the README's table, in Markdown. What is measured, and how, stands in ``fastcv.cli.contenders`` and
``fastcv.cli.model_speed``: ``fastcv bench MODEL`` is the same for users.
"""

from __future__ import annotations

import argparse
import sys

from fastcv.cli.contenders import CONTENDERS, MODELS
from fastcv.cli.model_speed import Comparison, compare


def rows(result: Comparison) -> list[str]:
    """One row per number of threads: fastcv's milliseconds, and how many times faster it is than each peer."""
    lines = []
    for count in result.threads:
        cells = [result.title, str(count), f"{1e3 * result.seconds['fastcv'][count]:.0f} ms"]
        for contender in list(CONTENDERS)[1:]:
            known = contender in result.seconds
            cells.append(f"{result.ratio(contender, count):.2f}×" if known else "–")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main(arguments: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"default: {', '.join(MODELS)}")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="small forms of the networks")
    options = parser.parse_args(arguments)
    peers = list(CONTENDERS)[1:]
    print(f"| network | threads | fastcv | against {' | '.join(peers)} |")
    print(f"|---|---:|---:|{'---:|' * len(peers)}")
    for name in options.models or MODELS:
        result = compare(MODELS[name](options.quick), options.threads, options.rounds)
        print("\n".join(rows(result)), flush=True)
        for contender, why in result.missing.items():
            print(f"{name}: without {contender}: {why}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
