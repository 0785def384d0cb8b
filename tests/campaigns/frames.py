"""Killing the frame stage: whatever moment SIGKILL comes, the finished store is the same.

    python -m tests.campaigns.frames --kills 20 [--seed 0]

A small dataset of self-made videos is sampled in several shards, one process of the command line
each, as the workflow does it. Processes are killed at seeded moments and the stage is run again
until all shards are there.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from discovla.data.annotations.base import Clip, to_table, write_annotations
from discovla.data.clips import list_clips, write_clips
from discovla.data.worker import DecodeWorker
from tests.campaigns.command import kill_command
from tests.data.videos import write_video

SHARDS = 3
PATIENCE = 120


@dataclass(frozen=True)
class Dataset:
    """The inputs of the frame stage."""

    root: Path

    @classmethod
    def make(cls, root: Path, clips: int = 18) -> Dataset:
        """Videos of plain frames, one of them broken."""
        pairs = []
        for number in range(clips):
            name = f"clip {number}"
            write_video(root / f"{name}.mp4", n_frames=20 + number, size=(160, 120))
            pairs.append((Clip(name, "train", (name,)), f"caption of {name}"))
        (root / "clip 3.mp4").write_bytes(b"no video at all")
        annotations = to_table(pairs)
        write_annotations(
            annotations, root / "annotations.parquet", dataset="campaign", rules={}, sources={}
        )
        with DecodeWorker() as worker:
            write_clips(list_clips(annotations, root, worker), root / "clips.parquet", "campaign")
        return cls(root)

    def start(self, shard: str, folder: Path) -> subprocess.Popen[bytes]:
        """The process that makes one shard."""
        command = [sys.executable, "-m", "discovla", "sample-frames", "--root", str(self.root)]
        for name in ("annotations", "clips"):
            command += [f"--{name}", str(self.root / f"{name}.parquet")]
        command += ["--shard", shard, "--frames", "8", "--frames-id", "0123456789"]
        command += ["--output", str(folder / f"{shard}.arrow")]
        return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def shards() -> list[str]:
    """Names of all shards."""
    return [f"{n}-of-{SHARDS}" for n in range(1, SHARDS + 1)]


def undisturbed(data: Dataset, folder: Path) -> float:
    """The whole stage without a kill; seconds of its slowest shard."""
    slowest = 0.0
    for shard in shards():
        begin = time.monotonic()
        if data.start(shard, folder).wait(PATIENCE) != 0:
            raise AssertionError(f"the frame stage fails without any kill, at {shard}")
        slowest = max(slowest, time.monotonic() - begin)
    return slowest


@dataclass
class Outcome:
    """What a campaign saw."""

    kills: int = 0
    """Processes that died of SIGKILL."""
    with_leftovers: int = 0
    """Of those, how many left a temporary file."""
    stages: int = 0
    """Complete stores that were compared."""


def campaign(kills: int, seed: int, folder: Path) -> Outcome:
    """Kill the frame stage `kills` times and compare every finished store with an undisturbed one.

    Raises:
        AssertionError: a shard differs, is there after its process was killed half-way, or
            temporary files stay.
    """
    generator = random.Random(seed)
    data = Dataset.make(folder / "data")
    reference = folder / "reference"
    slowest = undisturbed(data, reference)
    expected = {path.name: path.read_bytes() for path in reference.iterdir()}
    outcome = Outcome()
    while outcome.kills < kills:
        store = folder / f"store{outcome.stages}"
        for shard in shards():
            wanted = kills - outcome.kills
            # No more than three in a row, so that kills meet every shard and reruns of reruns.
            output = store / f"{shard}.arrow"
            for _ in range(min(wanted, generator.randrange(4))):
                if not output.exists():
                    moment = _moment(generator, slowest, store, len(expected[output.name]))
                    _kill(data.start(shard, store), moment, output, expected, outcome)
            if not output.exists():
                assert data.start(shard, store).wait(PATIENCE) == 0, f"{shard} fails after a kill"
        found = {path.name: path.read_bytes() for path in store.iterdir()}
        assert found.keys() == expected.keys(), f"files are {sorted(found)}"
        assert found == expected, "a shard differs from that of an undisturbed run"
        outcome.stages += 1
    return outcome


def _moment(generator: random.Random, slowest: float, store: Path, size: int) -> Callable[[], bool]:
    """When to kill: after a while, or when so many bytes of the shard have been written."""
    if generator.random() < 0.3:
        end = time.monotonic() + generator.uniform(0, slowest)
        return lambda: time.monotonic() >= end
    share, before = generator.randrange(size), set(_temporary(store))
    return lambda: any(_size_of(path) > share for path in set(_temporary(store)) - before)


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _temporary(store: Path) -> list[Path]:
    return list(store.glob(".*"))


def _kill(
    process: subprocess.Popen[bytes],
    due: Callable[[], bool],
    output: Path,
    expected: dict[str, bytes],
    outcome: Outcome,
) -> None:
    """Kill a process when it is due, unless it ends before."""
    before = set(_temporary(output.parent))
    while process.poll() is None and not due():
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    if process.wait(PATIENCE) == 0:
        return
    outcome.kills += 1
    outcome.with_leftovers += bool(set(_temporary(output.parent)) - before)
    whole = not output.exists() or output.read_bytes() == expected[output.name]
    assert whole, f"{output.name} is there, but not whole"


def main() -> None:
    """Run the campaign of the command line."""
    kill_command(
        __doc__,
        campaign,
        lambda found: (
            f"{found.kills} kills, {found.with_leftovers} of them while a shard was written; "
            f"{found.stages} finished stores of {SHARDS} shards, all as without kills"
        ),
    )


if __name__ == "__main__":
    main()
