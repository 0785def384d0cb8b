"""Killing the caption stage: whatever moment SIGKILL comes, the merged table is the same.

    python -m tests.campaigns.captions --kills 20 [--seed 0] [--model FOLDER]

A small made-up set is captioned in two shards, one process of the command line each, as the
workflow does it. Processes are killed at seeded moments and started again until all shards are
there. Without `--model` they ask a server of this process; with it they run that LLaVA-NeXT
themselves (`discovla/demo/weights/llava` is the demo's), forked from a process that has imported
torch, so that kills fall into the work and not into imports. Every question is counted.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from discovla import cli
from discovla.captioning import table
from discovla.captioning.run import PART_SIZE
from discovla.data.annotations.base import Clip, to_table, write_annotations
from discovla.data.frame_file import record_batch, shard_file
from discovla.data.shards import shard_name, shard_of
from tests.captioning.chat_server import ChatServer
from tests.captioning.conftest import echo, noise

SHARDS, FRAMES, CAPTIONS, SIDE = 2, 6, 4, 48
CAPTIONS_ID = "0123456789"
NOTES = "asked.txt"
PATIENCE = 1200
#: Of a part: it is full with its last clip.
LARGEST_PART = PART_SIZE + FRAMES * CAPTIONS


class Job(Protocol):
    """A running command, as `subprocess.Popen` has it."""

    def poll(self) -> int | None: ...

    def send_signal(self, number: int) -> None: ...

    def wait(self, timeout: float) -> int | None: ...


class Forked:
    """A command of discovla in a process that has torch imported already, its questions noted."""

    def __init__(self, command: list[str], notes: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["discovla.captioning.llava", "discovla.captioning.run"])
        self._process = context.Process(target=_run_quietly, args=(command, notes))
        self._process.start()

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self._process.pid and self._process.is_alive():
            os.kill(self._process.pid, number)

    def wait(self, timeout: float) -> int | None:
        self._process.join(timeout)
        return self._process.exitcode


def _run_quietly(command: list[str], notes: Path) -> None:
    from discovla.captioning.llava import LlavaNextCaptioner

    inner = LlavaNextCaptioner.caption

    def caption(self: Any, images: Sequence[Any], prompts: Sequence[str], **how: bool) -> Any:
        if not how:  # second tries belong to the first
            lines = [
                f"{zlib.crc32(image)} {prompt}\n"
                for image, prompt in zip(images, prompts, strict=True)
            ]
            with notes.open("a", encoding="utf-8") as file:
                file.writelines(lines)
        return inner(self, images, prompts, **how)

    LlavaNextCaptioner.caption = caption  # type: ignore[method-assign]
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sys.exit(cli.main(command))


class Notes:
    """Questions that other processes write down, a line each."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)

    def __iter__(self) -> Iterator[str]:
        return iter(
            self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else ()
        )


Asked = list[Any] | Notes


@dataclass(frozen=True)
class Dataset:
    """The inputs of the caption stage, and who answers."""

    root: Path
    engine: tuple[str, ...]

    @classmethod
    def make(cls, root: Path, clips: int, engine: tuple[str, ...]) -> Dataset:
        """Training clips of noise, with as many captions each, and one of them twice."""
        names = [f"clip {number}" for number in range(clips)]
        pairs = [
            (Clip(name, "train", (name,)), f"a red ring moves in {name}, take {n % (CAPTIONS - 1)}")
            for name in names
            for n in range(CAPTIONS)
        ]
        write_annotations(
            to_table(pairs), root / "annotations.parquet", dataset="c", rules={}, sources={}
        )
        for number in range(1, SHARDS + 1):
            cls._write_shard(root, number, [n for n in names if shard_of(n, SHARDS) == number])
        return cls(root, engine)

    @staticmethod
    def _write_shard(root: Path, number: int, clip_ids: list[str]) -> None:
        shard = shard_name(number, SHARDS)
        metadata = {"frames_id": "f" * 10, "frames": FRAMES, "shard": shard}
        metadata |= {"clips": len(clip_ids), "clip_ids": clip_ids}
        with shard_file(root / f"{shard}.arrow", metadata) as writer:
            for clip_id in clip_ids:
                first = int(clip_id.split()[1]) * FRAMES
                rows = [_frame(clip_id, position, first) for position in range(FRAMES)]
                writer.write_batch(record_batch(rows))

    @property
    def notes(self) -> Path:
        """Where processes with a model of their own note what they ask it."""
        return self.root / NOTES

    def start(self, shard: str, folder: Path) -> Job:
        """The process that makes one shard."""
        command = ["caption", "--kind", "guided", *self.engine]
        command += ["--frames", str(self.root / f"{shard}.arrow")]
        command += ["--annotations", str(self.root / "annotations.parquet")]
        command += ["--captions-id", CAPTIONS_ID, "--output", str(folder / f"{shard}.parquet")]
        if "--model" in self.engine:
            return Forked(command, self.notes)
        whole = [sys.executable, "-m", "discovla", *command]
        return subprocess.Popen(whole, stderr=subprocess.DEVNULL)

    def merged(self, folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Rows and metadata of the merged table."""
        path = folder / "merged.parquet"
        annotations = self.root / "annotations.parquet"
        metadata = table.merge(table.shards_in(folder), annotations, CAPTIONS_ID, path)
        return table.read(path).to_pylist(), metadata


def _frame(clip_id: str, position: int, first: int) -> dict[str, Any]:
    return {
        "clip_id": clip_id,
        "position": position,
        "frame_index": position,
        "timestamp": position / 10,
        "width": SIDE,
        "height": SIDE,
        "encoding": "raw",
        "data": noise(first + position, SIDE, SIDE).tobytes(),
        "reader": "test",
        "bad_packets": 0,
    }


def shards() -> list[str]:
    """Names of all shards."""
    return [shard_name(number, SHARDS) for number in range(1, SHARDS + 1)]


@dataclass
class Outcome:
    """What a campaign saw."""

    kills: int = 0
    """Processes that died of SIGKILL."""
    with_parts: int = 0
    """Of those, how many left finished parts, which the next process took over."""
    tables: int = 0
    """Complete tables that were compared."""
    largest_repeat: int = 0
    """Most questions that were asked again after one kill."""
    kept: dict[str, int] = field(default_factory=dict)
    """Finished parts of the shard at work, and when each was written."""


def campaign(
    kills: int, seed: int, folder: Path, *, clips: int = 160, model: str | None = None
) -> Outcome:
    """Kill the caption stage `kills` times and compare every table with an undisturbed one.

    Raises:
        AssertionError: a table differs, a finished part is made again, more questions are repeated
            than one part has, or files stay.
    """
    generator = random.Random(seed)
    outcome = Outcome()
    with _engine(model, folder / "data") as (engine, asked):
        data = Dataset.make(folder / "data", clips, engine)
        usual = _undisturbed(data, folder / "reference")
        expected = data.merged(folder / "reference")
        once = _count(asked)
        assert max(once.values()) == 1, "a question is asked twice without a kill"
        while outcome.kills < kills:
            store = folder / f"store{outcome.tables}"
            for shard in shards():
                asked.clear()
                wanted = min(kills - outcome.kills, generator.randrange(1, 4))
                died = _shard(data, shard, store, wanted, usual, generator, outcome)
                _check_repeats(_count(asked), died, outcome)
            assert data.merged(store) == expected, "the table differs from an undisturbed one"
            left = {path.name for path in store.iterdir()} - {f"{s}.parquet" for s in shards()}
            assert left <= {"merged.parquet"} | {n for n in left if n[0] == "."}, left
            outcome.tables += 1
            print(f"{outcome.kills} kills, {outcome.tables} tables", file=sys.stderr)
    return outcome


@contextmanager
def _engine(model: str | None, root: Path) -> Iterator[tuple[tuple[str, ...], Asked]]:
    """Options of the command, and what every question is added to."""
    if model:
        options = ("--model", model, "--device", "cpu", "--max-new-tokens", "20")
        yield options, Notes(root / NOTES)
        return
    with ChatServer(echo) as server:
        yield ("--engine", "server", "--url", server.url, "--concurrency", "4"), server.requests


def _undisturbed(data: Dataset, folder: Path) -> float:
    """The whole stage without a kill; seconds of its fastest shard: the first may import torch."""
    seconds = []
    for shard in shards():
        begin = time.monotonic()
        assert data.start(shard, folder).wait(PATIENCE) == 0, f"{shard} fails without any kill"
        seconds.append(time.monotonic() - begin)
    return min(seconds)


def _shard(
    data: Dataset,
    shard: str,
    store: Path,
    wanted: int,
    usual: float,
    generator: random.Random,
    outcome: Outcome,
) -> int:
    """Make one shard with up to `wanted` kills on the way; how many processes died."""
    output, before = store / f"{shard}.parquet", outcome.kills
    outcome.kept = {}
    for _ in range(wanted):
        if not output.exists():
            _kill(data.start(shard, store), _moment(generator, usual, output), output, outcome)
    if not output.exists():
        assert data.start(shard, store).wait(PATIENCE) == 0, f"{shard} fails after a kill"
    return outcome.kills - before


def _moment(generator: random.Random, usual: float, output: Path) -> Callable[[], bool]:
    """When to kill: after a while, or while one of the next files is being written."""
    if generator.random() < 0.7:
        end = time.monotonic() + generator.uniform(0, usual)
        return lambda: time.monotonic() >= end
    seen = _temporary(output)
    enough = len(seen) + generator.randrange(1, 4)

    def written() -> bool:
        seen.update(_temporary(output))
        return len(seen) >= enough

    return written


def _temporary(output: Path) -> set[Path]:
    folders = (output.parent, Path(f"{output}.parts"))
    # A lease has a temporary file as well, before any work.
    return {path for folder in folders for path in folder.glob(".*.parquet")}


def _kill(process: Job, due: Callable[[], bool], output: Path, outcome: Outcome) -> None:
    """Kill a process when it is due, unless it ends before."""
    while process.poll() is None and not due():
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    if process.wait(PATIENCE) == 0:
        return
    outcome.kills += 1
    parts = Path(f"{output}.parts").glob("[!.]*.parquet")
    found = {path.name: path.stat().st_mtime_ns for path in parts}
    if not output.exists():  # else it died while it removed the parts
        again = {name for name, written in outcome.kept.items() if found.get(name) != written}
        assert not again, f"finished parts were made again: {sorted(again)}"
        outcome.kept = found
    outcome.with_parts += bool(found)


def _count(asked: Asked) -> Counter[str]:
    return Counter(json.dumps(question) for question in asked)


def _check_repeats(questions: Counter[str], died: int, outcome: Outcome) -> None:
    repeated = questions.total() - len(questions)
    assert repeated <= died * LARGEST_PART, f"{repeated} questions repeated after {died} kills"
    if died:
        outcome.largest_repeat = max(outcome.largest_repeat, int(np.ceil(repeated / died)))


def main() -> None:
    """Run the campaign of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clips", type=int, default=160)
    parser.add_argument("--model", metavar="FOLDER", help="a LLaVA-NeXT; none = a server")
    args = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        outcome = campaign(args.kills, args.seed, folder, clips=args.clips, model=args.model)
    seconds = time.monotonic() - begin
    print(
        f"{outcome.kills} kills, {outcome.with_parts} of them with finished parts; "
        f"{outcome.tables} merged tables, all as without kills; {outcome.largest_repeat} questions "
        f"repeated per kill at most (a part has {PART_SIZE} or a few more; {seconds:.0f} s)"
    )


if __name__ == "__main__":
    main()
