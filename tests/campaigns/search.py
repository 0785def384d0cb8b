"""Killing the index: whatever moment SIGKILL comes, nothing committed is lost and nothing doubled.

    python -m tests.campaigns.search --kills 20 [--seed 0]

Clips come, go, change and come back in a folder; each time a process brings its index up to date
and is killed at a seeded moment, half of the times while a table is being written. After each kill
the index must hold whole videos only, each once, and every one whose commit had returned; a search
must find them and no others. In the end it is brought up to date without a kill and must be equal
to an index made at once.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from discovla.demo.world import draw_clip, encode_video
from discovla.search.build import Options, build
from discovla.search.model import Source, plain_clip
from discovla.search.query import search
from discovla.search.store import Index, Writer
from tests.campaigns.command import kill_command

OPTIONS = Options(device="cpu", batch=4, timeout=60, prune=True, commit_after=0)
WINDOW = 1.0
WRITES = 40
"""About so many files a process writes."""
PATIENCE = 300
PRELOADED = ["discovla.search.build", "discovla.models.backbone"]
Content = dict[str, tuple[str, Any, list[Any]]]


def keep_up(videos: Path, index: Path, model: Source, journal: Path) -> None:
    """Bring the index up to date; every key is noted when its commit has returned."""
    # A decoder whose process is gone complains.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    commit, remove = Writer.commit, Writer.remove

    def note(sign: str, keys: list[str]) -> None:
        with journal.open("a", encoding="utf-8") as handle:
            handle.writelines(f"{sign}{key}\n" for key in keys)

    def committed(self: Writer, found: Any) -> None:
        keys = [video.item.key for video in found]
        commit(self, found)
        note("+", keys)

    def removed(self: Writer, keys: Any) -> None:
        wanted = list(keys)
        note("?", wanted)  # from here on they may be gone
        remove(self, wanted)
        note("-", wanted)

    Writer.commit, Writer.remove = committed, removed  # type: ignore[method-assign,assignment]
    build(videos, index, model, window=WINDOW, options=OPTIONS)


def content(folder: Path) -> Content:
    """Key → entry, vector and moments of every video.

    Raises:
        AssertionError: a video is there twice, or not whole.
    """
    index = Index(folder)
    rows = index.videos.rows(["key", "entry", "duration", "vector"]).to_pylist()
    moments: dict[str, list[Any]] = {}
    for row in index.moments.rows(["entry", "number", "start", "vector"]).to_pylist():
        moments.setdefault(row.pop("entry"), []).append(row)
    found: Content = {}
    for row in rows:
        parts = sorted(moments.get(row["entry"], []), key=lambda part: part["number"])
        assert row["key"] not in found, f"{row['key']} is there twice"
        numbers = [part["number"] for part in parts]
        assert numbers == list(range(round(row["duration"] / WINDOW))), f"{row['key']}: {numbers}"
        found[row["key"]] = (row["entry"], row["vector"], parts)
    for by in ("video", "moment"):
        query = np.array(rows[0]["vector"], np.float32) if rows else None
        hits = search(index, query, 500, by) if query is not None else []
        assert sorted(hit.key for hit in hits) == sorted(found), f"search by {by} finds others"
    return found


@dataclass
class Outcome:
    """What a campaign saw."""

    kills: int = 0
    """Processes that died of SIGKILL."""
    writing: int = 0
    """Of those, how many while a table was being written."""
    committed: int = 0
    """Videos whose commit had returned, over all kills."""
    left: int = 0
    """Moments of no video that kills left, to be swept out."""


class Campaign:
    """A folder, its index, and what must be in it."""

    def __init__(self, folder: Path, clips: int, seed: int) -> None:
        self.random = random.Random(seed)
        self.pool = folder / "pool"
        self.videos, self.index = folder / "videos", folder / "index"
        self.journal = folder / "journal"
        self.pool.mkdir()
        self.videos.mkdir()
        for number in range(clips):
            encode_video(self.pool / f"{number}.mp4", draw_clip("test", number).frames())
        self.model = plain_clip("demo-clip", None, Path("config"))
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOADED)
        self.seconds = 0.0
        self.outcome = Outcome()

    def stir(self) -> None:
        """Some clips come, some go, some get other content."""
        files = sorted(self.pool.iterdir())
        for path in files:
            target, what = self.videos / path.name, self.random.random()
            if what < 0.35:
                shutil.copy(path, target)
            elif what < 0.5:
                shutil.copy(self.random.choice(files), target)
            elif what < 0.65 and len(list(self.videos.iterdir())) > 2:
                target.unlink(missing_ok=True)
        shutil.copy(files[0], self.videos / files[0].name)  # a folder without videos is refused

    def run(self, kill: bool) -> bool:
        """One process; returns whether it was killed."""
        before = self.known()
        self.journal.write_text("")
        wanted = (self.videos, self.index, self.model, self.journal)
        process = self.context.Process(target=keep_up, args=wanted)
        begin = time.monotonic()
        process.start()
        writing = False
        if kill:
            writing = self.wait(process)
            process.kill()
        process.join(PATIENCE)
        if process.exitcode == 0:
            self.seconds = time.monotonic() - begin
            return False
        assert kill, f"fails without any kill: exit code {process.exitcode}"
        assert process.exitcode == -signal.SIGKILL, f"exit code {process.exitcode}"
        self.outcome.kills += 1
        self.outcome.writing += writing
        self.check(before)
        return True

    def wait(self, process: Any) -> bool:
        """Until a random moment, or until a table has a new file; returns which."""
        if self.random.random() < 0.5:
            process.join(self.random.uniform(0, self.seconds))
            return False
        # Any write: of data, of a deletion, of a new version, or when small files are joined.
        skip, seen = self.random.randrange(WRITES), self.files()
        while process.is_alive():
            if found := self.files() - seen:
                seen |= found
                skip -= len(found)
                if skip < 0:
                    return True
        return False

    def files(self) -> set[str]:
        """Every file of the tables, half-written ones too."""
        # os.walk, and not a glob: it bears folders that vanish meanwhile.
        return {f"{folder}/{name}" for folder, _, names in os.walk(self.index) for name in names}

    def known(self) -> set[str]:
        """Keys in the index now."""
        return set(content(self.index)) if (self.index / "current.json").is_file() else set()

    def check(self, before: set[str]) -> None:
        """What must hold after a kill."""
        sure, perhaps = set(before), set()
        for line in self.journal.read_text(encoding="utf-8").splitlines():
            sign, key = line[0], line[1:]
            if sign == "+":
                sure.add(key)
                perhaps.discard(key)
                self.outcome.committed += 1
            else:
                sure.discard(key)
                perhaps.add(key) if sign == "?" else perhaps.discard(key)
        found = self.known()
        assert sure <= found, f"committed, and lost: {sorted(sure - found)}"
        if (self.index / "current.json").is_file():
            index = Index(self.index)
            entries = set(index.videos.rows(["entry"])["entry"].to_pylist())
            moments = index.moments.rows(["entry"])["entry"].to_pylist()
            self.outcome.left += sum(entry not in entries for entry in moments)

    def finish(self) -> None:
        """The index brought up to date equals one that is made at once."""
        assert not self.run(kill=False)
        whole = self.index.with_name("whole")
        shutil.rmtree(whole, ignore_errors=True)
        build(self.videos, whole, self.model, window=WINDOW, options=OPTIONS)
        found, expected = content(self.index), content(whole)
        assert found.keys() == expected.keys()
        assert found == expected, "a video differs from that of an index made at once"
        index = Index(self.index)
        assert len(index.moments) == sum(len(parts) for _, _, parts in found.values())


def campaign(kills: int, seed: int, folder: Path, clips: int = 12) -> Outcome:
    """Kill `kills` times; every few kills the index is finished and compared.

    Raises:
        AssertionError: something was lost, doubled, half there, or differs in the end.
    """
    state = Campaign(folder, clips, seed)
    state.stir()
    state.run(kill=False)  # says how long it takes
    state.stir()
    attempts = 0
    while state.outcome.kills < kills:
        attempts += 1
        assert attempts <= 10 * kills + 10, "processes end before they can be killed"
        if not state.run(kill=True) or state.random.random() < 0.4:
            state.stir()
    state.finish()
    return state.outcome


def main() -> None:
    """Run the campaign of the command line."""
    kill_command(
        __doc__,
        campaign,
        lambda found: (
            f"{found.kills} kills, {found.writing} of them while a table was written; "
            f"{found.committed} videos committed before a kill, none lost or doubled; "
            f"{found.left} moments left by kills were swept out; the finished index equals one "
            "made at once"
        ),
    )


if __name__ == "__main__":
    main()
