"""The faults: how each is brought about, what must come of it, and what the user sees."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.campaigns.artefacts import damaged
from tests.campaigns.fault_place import DISK, Place, Run, is_locked, kill, may_mount, name_of, wait

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
DAY = 86400
DATED = "dated .* by this machine's clock|clock skew"
"""What is said of a file of the future: by the long jobs before they begin, else by Snakemake."""


NO_EFFECT = "no effect"
"""The disk had room enough, or the damage was in nothing that was read."""


@dataclass(frozen=True)
class Stage:
    """A step of the workflow: what it makes, and which files it reads."""

    targets: tuple[str, ...]
    reads: tuple[str, ...]


@dataclass
class Record:
    """One injected fault."""

    kind: str
    what: str
    """What was disturbed."""
    outcome: str
    """`resumed`, `clear error`, `refused`, or what went wrong."""
    seen: str = ""
    """The line the user reads."""

    @property
    def is_fault(self) -> bool:
        """Whether the workflow did not do what it promises."""
        return self.outcome not in ("resumed", "clear error", "refused", "waited", NO_EFFECT)


def message(text: str, pattern: str) -> str:
    """The line of what Snakemake printed that names the cause; "" if there is none."""
    lines = [line.strip() for line in text.splitlines()]
    found = [line for line in lines if re.search(pattern, line)]
    return found[-1] if found else ""


def _judge(kind: str, what: str, code: int, text: str, pattern: str) -> Record:
    """A workflow that was stopped by a fault must say why; what it lists of each job is no reason.

    `pattern` is what only the reason holds.
    """
    if code == 0:
        return Record(kind, what, NO_EFFECT)
    seen = message(text, pattern)
    return Record(kind, what, "clear error" if seen else f"unclear error: {text[-1500:]}", seen)


# Kills


def kill_jobs(place: Place, stage: Stage, rng: random.Random, faults: int) -> Iterator[Record]:
    """Processes of jobs are killed at random moments; the workflow itself tries again."""
    run = place.start("--retries", "100", *stage.targets)
    killed: list[str] = []
    while len(killed) < faults and wait(rng.uniform(0.3, 8), run):
        jobs = run.jobs()
        if jobs:
            pid = rng.choice(jobs)
            name = name_of(pid)
            if kill(pid) and name != "gone":
                killed.append(name)
    code, text = run.end()
    seen = message(text, "Trying to restart job")
    if code and re.search("^Error in rule check:", text, re.MULTILINE):
        # It is not tried again by itself, since what it finds wrong would be wrong again.
        seen = message(text, "exit status 137|Signals.SIGKILL")
        code, text = place.run(*stage.targets)
    outcome = "resumed" if code == 0 else f"failed after kills: {text[-1500:]}"
    yield from (Record("kill -9 of a job", name, outcome, seen) for name in killed)


def kill_snakemake(place: Place, stage: Stage, rng: random.Random, faults: int) -> Iterator[Record]:
    """Snakemake alone is killed: its jobs go on as orphans while it is started again."""
    kind = "kill -9 of Snakemake alone"
    yield from _killed(place, stage, rng, kind, lambda run: kill(run.process.pid))


def kill_all(place: Place, stage: Stage, rng: random.Random, faults: int) -> Iterator[Record]:
    """Everything is killed at once, as a power cut does."""
    yield from _killed(place, stage, rng, "kill -9 of all at once", lambda run: run.kill_all())


def _killed(
    place: Place, stage: Stage, rng: random.Random, kind: str, strike: Callable[[Run], object]
) -> Iterator[Record]:
    run = place.start(*stage.targets)
    if not _until_jobs(run, rng):
        run.end()
        return
    names = sorted({name_of(pid) for pid in run.jobs()} - {"the job's shell", "gone"})
    strike(run)
    run.process.wait()
    code, text = place.run(*stage.targets)
    seen = message(text, "Error: Directory cannot be locked|cannot be locked")
    if code and is_locked(text):
        place.run("--unlock")
        code, text = place.run(*stage.targets)
    logs = "".join(_logs(place, run))
    if waited := message(logs, "waiting for process"):
        seen = re.sub(r"^[\d:]+ \w+ ", "", waited)
    run.kill_all()
    outcome = "resumed" if code == 0 else f"not resumed: {text[-1500:]}"
    if waited and code == 0:
        outcome = "waited"
    yield Record(kind, ", ".join(names), outcome, seen)


def _until_jobs(run: Run, rng: random.Random) -> bool:
    """Wait for jobs, and then a random while; whether some are at work."""
    end = time.monotonic() + 300
    while not run.jobs() and run.process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    return wait(rng.uniform(0.2, 25), run) and bool(run.jobs())


def _logs(place: Place, run: Run) -> Iterator[str]:
    """Logs of jobs that were written since a run began."""
    for path in (place.folder / "logs").rglob("*.log"):
        if path.stat().st_mtime >= run.began:
            yield path.read_text(encoding="utf-8", errors="replace")


# Two at once


def two_at_once(place: Place, stage: Stage, rng: random.Random, faults: int) -> Iterator[Record]:
    """A second Snakemake is started in the same folder while one works."""
    run = place.start(*stage.targets)
    _until_jobs(run, rng)
    if run.process.poll() is not None:
        run.end()
        return
    second, text = place.run(*stage.targets)
    code, first = run.end()
    kind = "two Snakemakes at once"
    seen = message(text, "cannot be locked")
    if code:
        yield Record(kind, "the first one", f"disturbed by the second: {first[-1500:]}")
    elif second and seen:
        yield Record(kind, "with its lock", "refused", seen)
    else:
        yield Record(kind, "one after the other", NO_EFFECT if second == 0 else text[-1500:])


def two_without_lock(
    place: Place, stage: Stage, rng: random.Random, faults: int
) -> Iterator[Record]:
    """Two Snakemakes that are told not to lock: only the leases stand between them."""
    runs = [place.start("--nolock", *stage.targets) for _ in range(2)]
    ends = [run.end() for run in runs]
    failed = place.finish(*stage.targets)
    kind = "two Snakemakes at once"
    if failed:
        yield Record(kind, "--nolock", f"not resumed: {failed[-1500:]}")
        return
    waited = message("".join(_logs(place, runs[0])), "waiting for process|made by process")
    codes = [code for code, _ in ends]
    seen = re.sub(r"^[\d:]+ \w+ ", "", waited)
    outcome = "waited" if waited else "resumed"
    yield Record(kind, f"--nolock, exit codes {codes}", outcome, seen)


# Disks


def full_disk(place: Place, stage: Stage, rng: random.Random, faults: int) -> Iterator[Record]:
    """The disk of the workspace has a little space left, or, without root, files a limit."""
    kind, pattern = "full disk", "No space left on device"
    for _ in range(faults):
        left = int(10 ** rng.uniform(3.5, 5.7))
        with _limited(place, left) as limit:
            code, text = place.run(*stage.targets)
        found = pattern if limit == "disk" else "File too large"
        yield _judge(kind, f"{limit}, {left:,} bytes left", code, text, found)
        if code == 0:
            return


@contextlib.contextmanager
def _limited(place: Place, left: int) -> Iterator[str]:
    if place.disk:
        used = shutil.disk_usage(place.disk).used
        _remount(place.disk, str(used + left))
        try:
            yield "disk"
        finally:
            _remount(place.disk, DISK)
        return
    place.file_limit = left
    try:
        yield "limit of file sizes"
    finally:
        place.file_limit = None


def _remount(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


def read_only(place: Place, stage: Stage, rng: random.Random, faults: int) -> Iterator[Record]:
    """A folder that the stage writes into is mounted read-only for a while."""
    folders = sorted({str(Path(target).parent) for target in stage.targets} | {"logs/demo"})
    for folder in rng.sample(folders, min(faults, len(folders))):
        path = place.folder / folder
        path.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--bind", str(path), str(path)], check=True)
        try:
            subprocess.run(["mount", "-o", "remount,ro,bind", str(path)], check=True)
            code, text = place.run(*stage.targets)
        finally:
            subprocess.run(["umount", "-l", str(path)], check=True)
        said = "[Rr]ead-only file system|Write-protected output files"
        yield _judge("read-only folder", folder, code, text, said)


# Damage


def damage(place: Place, stage: Stage, rng: random.Random, faults: int) -> Iterator[Record]:
    """A file that the stage reads is damaged; its date stays. The user removes it, as told."""
    for name in rng.sample(stage.reads, min(faults, len(stage.reads))):
        path = place.folder / name
        if not path.exists():
            continue
        place.remove(*stage.targets)  # else nothing would read the file
        before = path.stat()
        how, content = damaged(path.read_bytes(), rng)
        path.write_bytes(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        kind = f"damaged {path.suffix[1:]} file"
        code, text = place.run(*stage.targets)
        made = place.content(*stage.targets) if code == 0 else None
        yield _judge(kind, f"{_kind_of(path)}: {how}", code, text, named(name))
        path.unlink(missing_ok=True)
        if failed := place.finish(*stage.targets):
            yield Record(kind, name, f"not resumed: {failed[-1500:]}")
        elif made is not None and made != place.content(*stage.targets):
            yield Record(kind, name, "what was damaged was used")


def named(name: str) -> str:
    """How a message about a file begins; a traceback, or a list of inputs, does not read so."""
    return rf"^(?:\S*/)?{re.escape(name)}: \S"


def _kind_of(path: Path) -> str:
    if path.suffix == ".arrow":
        return "frames"
    if path.parent.name == "captions" or path.parent.parent.name == "captions":
        return "captions"
    return path.name


def damaged_state(place: Place, stage: Stage, rng: random.Random, faults: int) -> Iterator[Record]:
    """A training is killed, and the state from which it would go on is damaged."""
    run = place.start(*stage.targets)
    state: list[Path] = []
    while not state and run.process.poll() is None:
        state = list(place.folder.glob("results/demo/runs/*/seed0/state/state.safetensors"))
        time.sleep(0.01)
    if not state:
        run.end()
        return
    run.kill_all()
    place.run("--unlock")
    if not state[0].exists():
        return
    how, content = damaged(state[0].read_bytes(), rng)
    state[0].write_bytes(content)
    code, text = place.run(*stage.targets)
    name = str(state[0].relative_to(place.folder))
    yield _judge("damaged safetensors file", f"state: {how}", code, text, named(name))
    shutil.rmtree(state[0].parent, ignore_errors=True)


# Clocks


def clock_jumps(place: Place, stage: Stage, rng: random.Random, faults: int) -> Iterator[Record]:
    """The clock of all processes jumps by up to a year, forth and back, while they work."""
    setting = place.said / "clock"
    before = dict(place.env)
    place.env |= {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(setting),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }
    setting.write_text("+0d")
    jumps = []
    try:
        run = place.start(*stage.targets)
        while len(jumps) < faults and wait(rng.uniform(0.5, 8), run):
            jumps.append(f"{rng.randint(-365, 365):+d}d")
            setting.write_text(jumps[-1])
        code, text = run.end()
    finally:
        place.env = before
    outcome, seen = "resumed", ""
    if code:
        code, text = place.run(*stage.targets)
    if code:
        judged = _judge("", "", code, text, DATED)
        outcome, seen = judged.outcome, judged.seen
    place.touch_future()
    if failed := place.finish(*stage.targets):
        outcome = f"not resumed: {failed[-1500:]}"
    for jump in jumps:
        way = "forth" if jump.startswith("+") else "back"
        yield Record("clock that jumps", f"{way} by up to a year", outcome, seen)


def dates_jump(place: Place, stage: Stage, rng: random.Random, faults: int) -> Iterator[Record]:
    """Files are dated by a clock that was wrong by a day."""
    for name in rng.sample(stage.reads, min(faults, len(stage.reads))):
        path = place.folder / name
        if not path.exists():
            continue
        now = path.stat().st_mtime
        future = rng.random() < 0.5
        os.utime(path, (now, now + DAY if future else now - DAY))
        code, text = place.run(*stage.targets)
        os.utime(path, (now, now))
        what = f"{_kind_of(path)} dated {'tomorrow' if future else 'yesterday'}"
        if code:
            yield _judge("clock that jumps", what, code, text, DATED)
        else:
            idle = "Nothing to be done" in text
            yield Record("clock that jumps", what, NO_EFFECT if idle else "resumed")
        if failed := place.finish(*stage.targets):
            yield Record("clock that jumps", what, f"not resumed: {failed[-1500:]}")


Kind = Callable[[Place, Stage, random.Random, int], Iterator[Record]]


def impossible(place: Place) -> dict[Kind, str]:
    """Kinds that this machine cannot bring about, and why."""
    found: dict[Kind, str] = {}
    if reason := may_mount() or ("" if place.disk else "mounting is not allowed here"):
        found[read_only] = f"{reason}, and a folder that root may not write cannot be made"
    if not FAKETIME.exists():
        found[clock_jumps] = "no libfaketime"
    return found
