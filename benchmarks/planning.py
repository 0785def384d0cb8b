"""Time and memory before any work starts, at LSMDC's size: `python -m benchmarks.planning`.

A self-made dataset in LSMDC's file format goes through the annotations, the quick look for videos
(empty files, which is all it needs) and Snakemake's plan of Table 2. Each step is a process of its
own, so that its largest memory can be read.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from discovla.data.annotations.lsmdc import FILES
from tests.workflow.run import command, edit, environment, workspace

CLIPS = 118_000
MOVIES = 200
HELD_OUT = {"val": 7408, "test": 1000}
WORDS = [
    "SOMEONE",
    "walks",
    "into",
    "the",
    "dark",
    "room",
    "and",
    "looks",
    "at",
    "his",
    "watch",
    "while",
    "it",
    "rains",
]
FIND_VIDEOS = """
import sys
from discovla.data.annotations import read_annotations
from discovla.data.clips import VideoIndex, stems_of_clips
stems = stems_of_clips(read_annotations(sys.argv[1]))
index = VideoIndex(sys.argv[2])
found = sum(index.find(names) is not None for names in stems.values())
sys.exit(0 if found == len(stems) == int(sys.argv[3]) else f"{found} of {len(stems)} found")
"""


@dataclass(frozen=True)
class Cost:
    """What one step took."""

    step: str
    seconds: float
    cpu: float
    """CPU seconds, of its children too: a busy machine makes `seconds` larger, and this not."""
    megabytes: float
    """Largest memory of its process."""


def clip_ids(number: int, rng: random.Random) -> Iterator[str]:
    """Ids in LSMDC's form: movie, begin and end, with dots."""
    for clip in range(number):
        movie, second = clip % MOVIES, 3 * (clip // MOVIES)
        begin = f"{second // 3600:02}.{second // 60 % 60:02}.{second % 60:02}"
        milliseconds = f"{rng.randrange(1000):03}"
        yield f"{movie:04}_Movie_{movie}_{begin}.{milliseconds}-{begin}.{milliseconds}"


def write_dataset(root: Path, clips: int, seed: int = 0) -> None:
    """Annotation files and one empty video per clip; every tenth training clip has two captions."""
    rng = random.Random(seed)
    held_out = {split: min(count, clips // 10) for split, count in HELD_OUT.items()}
    sizes = {"train": clips - sum(held_out.values()), **held_out}
    ids = clip_ids(clips, rng)
    for split, name in FILES.items():
        with (root / name).open("w", encoding="utf-8", newline="\n") as handle:
            for number in range(sizes[split]):
                clip = next(ids)
                for _ in range(2 if split == "train" and number % 10 == 0 else 1):
                    caption = " ".join(rng.choices(WORDS, k=9))
                    handle.write("\t".join([clip, *["00.00.00.000"] * 4, caption]) + "\n")
                folder = root / clip[: clip.index("_Movie")]
                folder.mkdir(exist_ok=True)
                (folder / f"{clip}.avi").touch()


def measured(step: str, arguments: list[str], **options: object) -> Cost:
    """Run a program to its end; `SystemExit` with what it said if it fails."""
    started = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(arguments, stdout=output, stderr=output, **options)  # type: ignore[call-overload]
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        if process.returncode:
            output.seek(0)
            raise SystemExit(f"{step} failed:\n{output.read().decode(errors='replace')[-2000:]}")
    return Cost(step, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def costs(folder: Path, clips: int, *, plan: bool = True) -> Iterator[Cost]:
    """The steps in their order, below `folder`."""
    root, table = folder / "data", folder / "annotations.parquet"
    root.mkdir()
    write_dataset(root, clips)
    options = ["--dataset", "lsmdc", "--reader", "lsmdc", "--root", str(root)]
    module = [sys.executable, "-m", "discovla", "annotations", *options, "--output", str(table)]
    yield measured("annotations", module)
    finder = [sys.executable, "-c", FIND_VIDEOS, str(table), str(root), str(clips)]
    yield measured("find every video", finder)
    if plan:
        space = workspace(folder / "plan")
        edit(space / "config" / "config.yaml", lambda c: c["data"].update(lsmdc=str(root)))
        target = command(space, "results/lsmdc/table2.csv", "-n", "--quiet")
        yield measured("snakemake -n, Table 2", target, env=environment())


def main(arguments: list[str] | None = None) -> None:
    """Print a line per step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=CLIPS, metavar="N")
    args = parser.parse_args(arguments)
    print(f"{args.clips:,} clips\n{'step':<28}{'seconds':>9}{'CPU s':>8}{'MB':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for cost in costs(Path(folder), args.clips):
            times = f"{cost.seconds:>9.1f}{cost.cpu:>8.1f}"
            print(f"{cost.step:<28}{times}{cost.megabytes:>8.0f}", flush=True)


if __name__ == "__main__":
    main()
