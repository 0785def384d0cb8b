"""`discovla parity`: compare the model with numbers recorded from the released code."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

_EPILOG = """\
A case is NAME.json with its parameters (NAME.weights_*.safetensors and the like) and
NAME.io.safetensors beside it. The relative error of a tensor is its largest absolute difference
over its largest absolute value; allowed are 1e-4 for outputs and losses, 1e-3 for gradients and
for tensors after optimiser steps (there the difference over the movement, both as L2 norms), and
1e-6 for an optimiser alone. Gradients of attention's key biases, zero in theory, are compared
absolutely.

example:
  discovla parity golden/public_a.json golden_methods/tempme_public.json

exit code: 0 all tensors agree, 1 some do not or a file is not readable
"""


def add_parser(subparsers: Any) -> None:
    """Register `parity`."""
    parser = subparsers.add_parser(
        "parity",
        help="compare outputs, losses and gradients with the released code's",
        description="Compare outputs, losses and gradients with golden cases of the released code.",
        epilog=_EPILOG,
    )
    parser.add_argument("cases", nargs="+", type=Path, metavar="CASE.json", help="golden cases")
    parser.add_argument(
        "--json", action="store_true", help="print {case: {tensor: error}, passed: bool}"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare every case; 0 if all tensors are within their limits, else 1."""
    from discovla import parity

    results = {case.stem: parity.compare(case) for case in args.cases}
    passed = all(parity.within_limits(errors) for errors in results.values())
    if args.json:
        # JSON knows no infinity: a tensor that is not finite or has another shape becomes null.
        shown = {
            case: {n: e if math.isfinite(e) else None for n, e in errors.items()}
            for case, errors in results.items()
        }
        json.dump({**shown, "passed": passed}, sys.stdout, indent=1, allow_nan=False)
        print()
        return 0 if passed else 1
    for case, errors in results.items():
        _print_case(case, errors, parity.limit_of)
    print("passed" if passed else "NOT passed")
    return 0 if passed else 1


def _print_case(case: str, errors: dict[str, float], limit_of: Any) -> None:
    """One line per group of tensors, and one per tensor beyond its limit."""
    groups: dict[str, list[str]] = {}
    for name in errors:
        groups.setdefault(name.split("/")[0], []).append(name)
    for group, names in groups.items():
        worst = max(names, key=lambda n: errors[n])
        print(
            f"{case}  {group:9} {len(names):3} tensors, limit {limit_of(worst):.0e}, "
            f"largest error {errors[worst]:.1e} ({worst.split('/', 1)[1]})"
        )
    for name, error in errors.items():
        if error > limit_of(name):
            print(f"{case}  beyond its limit: {name}: {error:.1e}")
