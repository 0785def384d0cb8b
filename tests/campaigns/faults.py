"""Faults in the whole workflow: `python -m tests.campaigns.faults --faults 100 --seed 0`.

A small demo (the same rules, models and commands; fewer videos and steps) is made again and again,
stage by stage, and disturbed at every stage: processes are killed, the disk is full, folders cannot
be written, files are damaged, the clock jumps, a second Snakemake is started. After each fault the
workflow must either go on by itself or say what is wrong, so that a person can mend it and go on.
In the end every table must equal, byte for byte, that of a run without disturbance, and nothing may
be left lying about. Prints counts by kind as Markdown; exit code 1 if anything was not as it must.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import random
import re
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.campaigns import fault_kinds as kinds
from tests.campaigns.fault_kinds import NO_EFFECT, Kind, Record, Stage, impossible
from tests.campaigns.fault_place import TABLES, Place, prepare, render, small_disk

#: Faults of one round, from no files to a table, at which its cost is well spread.
ROUND = 26
#: At which stages a kind is tried, and its share of all tries.
SHARES: dict[Kind, tuple[range, int]] = {
    kinds.kill_jobs: (range(9), 9),
    kinds.kill_snakemake: (range(2, 7), 3),
    kinds.kill_all: (range(2, 7), 2),
    kinds.two_at_once: (range(1, 7), 2),
    kinds.two_without_lock: (range(2, 7), 2),
    kinds.full_disk: (range(9), 3),
    kinds.read_only: (range(9), 3),
    kinds.damage: (range(1, 9), 5),
    kinds.damaged_state: (range(5, 6), 1),
    kinds.clock_jumps: (range(2, 9), 2),
    kinds.dates_jump: (range(7, 9), 1),
}


@dataclass
class Result:
    """What a round saw."""

    records: list[Record] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What was not as it must be."""
    table: dict[str, str] = field(default_factory=dict)
    """Digests of its files."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Kinds of faults that this machine cannot bring about, and why."""
    rounds: int = 1

    def count(self) -> int:
        """Faults that had an effect."""
        return sum(record.outcome != NO_EFFECT for record in self.records)


def stages(reference: Path) -> list[Stage]:
    """The workflow step by step, with the ids that a finished run has."""

    def find(pattern: str) -> list[str]:
        found = sorted(str(path.relative_to(reference)) for path in reference.glob(pattern))
        assert found, pattern
        return found

    annotations, clips = "resources/demo/annotations.parquet", "resources/demo/clips.parquet"
    frames = find("resources/demo/frames/*/*.arrow")
    shards = find("results/demo/captions/*/*.parquet")
    merged = find("results/demo/captions/*.parquet")
    config = find("results/demo/runs/*/config.json")
    adapter = find("results/demo/runs/*/seed0/adapter.safetensors")
    features = find("results/demo/runs/*/seed0/features.*.safetensors")
    metrics = find("results/demo/runs/*/seed0/metrics.*.json")
    steps = [
        ([annotations], []),
        ([clips], [annotations]),
        (frames, [annotations, clips]),
        (shards, [annotations, *frames]),
        (merged, [annotations, *shards]),
        (adapter, [*config, *merged, *frames, annotations]),
        (features, [*config, *adapter, *frames, annotations]),
        (metrics, features),
        (TABLES[:1], metrics),
    ]
    return [Stage(tuple(targets), tuple(reads)) for targets, reads in steps]


def plan(rng: random.Random, faults: int, allowed: list[Kind]) -> list[tuple[int, Kind, int]]:
    """Which faults come at which stage; kills of jobs come several at a time."""
    chosen: collections.Counter[tuple[int, Kind]] = collections.Counter()
    for kind in rng.choices(allowed, [SHARES[kind][1] for kind in allowed], k=faults):
        chosen[rng.choice(SHARES[kind][0]), kind] += 1
    order = list(SHARES)
    return sorted(
        ((stage, kind, count) for (stage, kind), count in chosen.items()),
        key=lambda entry: (entry[0], order.index(entry[1]) == 0, rng.random()),
    )


def one_round(
    number: int, faults: int, seed: int, root: Path, world: Path, steps: list[Stage]
) -> Result:
    """From no files to a table, with `faults` faults on the way."""
    rng = random.Random(f"{seed}/{number}")
    result = Result()
    with small_disk(root / f"round{number}") as disk:
        folder = prepare(root / f"round{number}" / "demo", world)
        place = Place(folder, root / f"said{number}", disk)
        left_out = impossible(place)
        result.left_out = {kind.__name__: why for kind, why in left_out.items()}
        allowed = [kind for kind in SHARES if kind not in left_out]
        for stage, kind, count in plan(rng, faults, allowed):
            before = steps[stage - 1].targets if stage else ()
            if not place.has(*before) and (failed := place.finish(*before)):
                result.problems.append(f"round {number}, before stage {stage}: {failed[-3000:]}")
                return result
            if kind is not kinds.dates_jump:  # which is about files that are there
                place.remove(*steps[stage].targets)
            for record in kind(place, steps[stage], rng, count):
                text = f"{record.kind}: {record.what}: {record.outcome}"
                print(f"[{number}, stage {stage}] {text}", file=sys.stderr, flush=True)
                result.records.append(record)
        if failed := place.finish(TABLES[0]):
            result.problems.append(f"round {number}: no table: {failed[-3000:]}")
            return result
        result.problems += [f"round {number}: left behind: {name}" for name in place.left()]
        result.table = place.table()
    return result


def campaign(faults: int, seed: int, root: Path, side_by_side: int) -> Result:
    """Rounds until there were enough faults, and one without a fault to compare with.

    A round may see fewer faults than were planned: jobs can end before they are to be killed.
    """
    world = render(root / "world")
    reference = Place(prepare(root / "reference", world), root / "said")
    if failed := reference.finish(TABLES[0]):
        raise AssertionError(f"the workflow fails without any fault: {failed}")
    expected, steps = reference.table(), stages(reference.folder)
    rounds: dict[int, Result] = {}
    numbers = itertools.count(1)

    def work() -> None:
        while (missing := faults - sum(found.count() for found in rounds.values())) > 0:
            number = next(numbers)
            rounds[number] = Result()
            share = max(8, min(ROUND, missing))
            rounds[number] = one_round(number, share, seed, root, world, steps)

    with ThreadPoolExecutor(side_by_side) as pool:
        for job in [pool.submit(work) for _ in range(side_by_side)]:
            job.result()
    total = Result(rounds=len(rounds))
    for number, found in sorted(rounds.items()):
        total.records += found.records
        total.problems += found.problems
        total.left_out |= found.left_out
        if found.table and found.table != expected:
            total.problems.append(f"round {number}: the table differs from the undisturbed one")
    wrong = [record for record in total.records if record.is_fault]
    total.problems += [f"{r.kind}: {r.what}: {r.outcome}" for r in wrong]
    return total


def as_markdown(result: Result) -> str:
    """Counts by kind and outcome, and for each what a user saw."""
    groups: dict[tuple[str, str], list[Record]] = collections.defaultdict(list)
    for record in result.records:
        groups[record.kind, record.outcome if not record.is_fault else "WRONG"].append(record)
    lines = ["| fault | outcome | count | what was disturbed | what the user saw |"]
    lines.append("|---|---|---|---|---|")
    for (kind, outcome), records in sorted(groups.items()):
        hit = collections.Counter(record.what for record in records).most_common(4)
        what = ", ".join(f"{name} ({n})" if n > 1 else name for name, n in hit)
        seen = next((record.seen for record in records if record.seen), "")
        shown = re.sub(r"/\S*/demo/", "", seen).replace("|", "\\|")[:300]
        lines.append(f"| {kind} | {outcome} | {len(records)} | {what} | {shown} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the campaign of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=100, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side-by-side", type=int, default=2, metavar="N", help="rounds at once")
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary one")
    args = parser.parse_args(arguments)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        result = campaign(args.faults, args.seed, Path(folder), args.side_by_side)
    print(as_markdown(result))
    for kind, why in result.left_out.items():
        print(f"\nleft out: {kind}: {why}")
    for problem in result.problems:
        print(f"\nPROBLEM: {problem}")
    print(
        f"\n{result.count()} faults, seed {args.seed}, {result.rounds} runs from no files to "
        f"a table, {len(result.problems)} problems, {time.monotonic() - began:.0f} s"
    )
    return 1 if result.problems else 0


if __name__ == "__main__":
    sys.exit(main())
