"""The command lines that campaigns have in common."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

Found = TypeVar("Found")


class Outcome(Protocol):
    """What came of one damaged file."""

    case: Any
    result: str
    fault: str


def damage_command(
    doc: str,
    run: Callable[[int, int], Sequence[Outcome]],
    cases: int,
    arguments: Sequence[str] | None,
) -> int:
    """Print how many cases were refused and read, and every fault; 1 if there is one.

    Args:
        doc: of the campaign; its first line describes the command.
        run: all cases, from their number and the seed.
        cases: how many, by default.
        arguments: of the command line.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--cases", type=int, default=cases, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    outcomes = run(args.cases, args.seed)
    faults = [outcome for outcome in outcomes if outcome.fault]
    for outcome in faults:
        print(f"{outcome.case}: {outcome.result}: {outcome.fault}")
    counts = Counter(outcome.result for outcome in outcomes)
    print(f"{len(outcomes)} cases, seed {args.seed}: {dict(counts)}, {len(faults)} faults")
    return 1 if faults else 0


def kill_command(
    doc: str, campaign: Callable[[int, int, Path], Found], told: Callable[[Found], str]
) -> None:
    """Run a campaign of kills in a folder of its own, and tell what it found and how long it took.

    Args:
        doc: of the campaign; its first line describes the command.
        campaign: from the number of kills, the seed and the folder.
        told: its outcome in words.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = campaign(args.kills, args.seed, Path(folder))
    print(f"{told(found)} ({time.monotonic() - begin:.0f} s)")
