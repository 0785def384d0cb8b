"""A small demo in a folder that can be disturbed: its own disk, its processes, its clock."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from discovla.demo.world import write_world
from discovla.storage.files import content_hash, read_json, sha256_file
from discovla.storage.lease import Owner
from tests.workflow.run import command, edit, environment, workspace

SIZES = {"train": 24, "val": 6, "test": 12}
TABLE = {
    "title": "Small",
    "prints": [],
    "metrics": ["R@1", "R@sum", "MnR"],
    "directions": ["t2v", "v2t"],
    "rows": [
        {"row": "discovla", "label": "DiscoVLA", "method": "discovla"},
        {"row": "qbnorm", "label": "+ QB-Norm", "method": "discovla", "post": "qbnorm"},
    ],
}
TABLES = [f"results/demo/small.{suffix}" for suffix in ("csv", "md", "tex")]
WORLD = Path("resources/demo/world")
PATIENCE = 1200
DISK = "512m"
TIMES = ("started", "seconds", "checksum")
"""Keys of metrics that differ from run to run; the last is a hash of all others."""


def prepare(folder: Path, world: Path) -> Path:
    """A workspace whose demo is small, with the videos of `world`."""
    workspace(folder)
    (folder / "config" / "tables" / "small.yaml").write_text(yaml.safe_dump(TABLE))

    def shrink(content: dict) -> None:
        content["expected"] = {"train": {"clips": SIZES["train"]}}
        content["set"] |= {"batch_size": 8, "max_steps": 16}

    edit(folder / "config" / "datasets" / "demo.yaml", shrink)
    shutil.copytree(world, folder / WORLD)
    return folder


def render(folder: Path) -> Path:
    """The videos of all workspaces: rendered once, since encoders differ now and then."""
    write_world(folder, SIZES)
    return folder


def may_mount() -> str:
    """Why no file system can be mounted here; "" if one can."""
    if os.geteuid() != 0:
        return "not root: no file system can be mounted"
    if shutil.which("mount") is None:
        return "no mount program"
    return ""


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """`folder` as a disk of its own while the block runs; None where that is not possible."""
    folder.mkdir(parents=True)
    if may_mount():
        yield None
        return
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "faults", str(folder)], check=False
    )
    try:
        yield folder if done.returncode == 0 else None
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "-l", str(folder)], check=True)


@dataclass
class Place:
    """A workspace under disturbance."""

    folder: Path
    said: Path
    """Folder for what the workflow prints, on another disk."""
    disk: Path | None = None
    """Mount point of its own disk, if it has one."""
    env: dict[str, str] = field(default_factory=dict)
    """Of the workflow, besides the plain environment."""
    file_limit: int | None = None
    """Bytes that the workflow may write into one file."""
    _runs: int = 0

    def start(self, *arguments: str) -> Run:
        """The workflow in the background, in a session of its own."""
        self._runs += 1
        self.said.mkdir(parents=True, exist_ok=True)
        output = self.said / f"{self._runs}.txt"
        began = time.time()
        with output.open("wb") as sink:
            process = subprocess.Popen(
                preexec_fn=self._limit,
                args=command(self.folder, *arguments),
                env=environment() | self.env,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Run(process, output, began)

    def _limit(self) -> None:
        if self.file_limit is not None:
            most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.file_limit, most))

    def run(self, *arguments: str) -> tuple[int, str]:
        """The workflow to its end: exit code and what it printed."""
        return self.start(*arguments).end()

    def finish(self, *targets: str) -> str:
        """Make targets, after whatever has happened; "" or why it failed.

        A lock that a killed Snakemake has left is removed first, as its message says.
        """
        code, text = self.run(*targets)
        if code and is_locked(text):
            self.run("--unlock")
            code, text = self.run(*targets)
        return "" if code == 0 else text

    def has(self, *targets: str) -> bool:
        """Whether all of them are there."""
        return all((self.folder / target).exists() for target in targets)

    def remove(self, *targets: str) -> None:
        """Make a stage undone, so that it has work to do."""
        for target in targets:
            (self.folder / target).unlink(missing_ok=True)

    def table(self) -> dict[str, str]:
        """Digest of each form of the table."""
        return {name: sha256_file(self.folder / name) for name in TABLES}

    def content(self, *targets: str) -> dict[str, str]:
        """Digests of files, without the times that metrics tell."""
        found = {}
        for target in targets:
            path = self.folder / target
            if path.suffix == ".json":
                kept = {k: v for k, v in read_json(path).items() if k not in TIMES}
                found[target] = content_hash(kept)
            else:
                found[target] = sha256_file(path)
        return found

    def touch_future(self) -> None:
        """What the message about a file dated in the future asks for."""
        now = time.time()
        for path in self.folder.rglob("*"):
            if path.is_file() and path.stat().st_mtime > now:
                path.touch()

    def left(self) -> list[str]:
        """Temporary files, and leases of processes at work, of which none should be left.

        The lease of a killed process stays until the next job of the same output takes it over.
        """
        leases = {path: Owner.parse(path.read_bytes()) for path in self.folder.rglob("*.lease")}
        found = [
            path for path, owner in leases.items() if not (owner and owner.process.has_ended())
        ]
        found += self.folder.rglob(".*.tmp-*")
        found += [*self.folder.rglob("*.parts"), *self.folder.rglob("state/*")]
        return [str(path.relative_to(self.folder)) for path in found]


@dataclass
class Run:
    """A workflow that was started."""

    process: subprocess.Popen[bytes]
    output: Path
    began: float

    def end(self) -> tuple[int, str]:
        """Wait for it: exit code and what it printed."""
        try:
            code = self.process.wait(PATIENCE)
        finally:
            self.kill_all()
        return code, self.text()

    def text(self) -> str:
        """What it has printed so far."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    def jobs(self) -> list[int]:
        """Its processes below Snakemake: shells, jobs, and what those have started."""
        return descendants(self.process.pid)

    def kill_all(self) -> None:
        """End it and everything that it has started, as a power cut does."""
        for pid in [self.process.pid, *self.jobs(), *session(self.process.pid)]:
            kill(pid)
        self.process.wait()


def kill(pid: int) -> bool:
    """SIGKILL; whether there was such a process."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _stat(pid: str) -> list[str]:
    """State, parent, group, session, … of a process."""
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return text.rpartition(")")[2].split()


def _processes() -> Iterator[tuple[int, list[str]]]:
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError):
                stat = _stat(path.name)
                if stat[0] not in "ZX":
                    yield int(path.name), stat


def descendants(root: int) -> list[int]:
    """Processes below one."""
    parents = {pid: int(stat[1]) for pid, stat in _processes()}
    found, fresh = [], {root}
    while fresh:
        fresh = {pid for pid, parent in parents.items() if parent in fresh}
        found += sorted(fresh)
    return found


def session(leader: int) -> list[int]:
    """Processes of a session, orphans among them."""
    return [pid for pid, stat in _processes() if int(stat[3]) == leader]


def name_of(pid: int) -> str:
    """What a process does: the command of this project, or the program."""
    with contextlib.suppress(OSError):
        parts = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
        if parts[1:3] == ["-m", "discovla"]:
            return parts[3]
        script = next((part for part in parts if "/scripts/" in part), "")
        if found := re.search(r"/(?:tmp\w+\.)?(\w+)\.py", script):
            return found[1]
        if Path(parts[0]).name in ("bash", "sh"):
            return "the job's shell"
        return Path(parts[0]).name
    return "gone"


def is_locked(text: str) -> bool:
    """Whether Snakemake says that another one works here, or was killed."""
    return "cannot be locked" in text


def wait(seconds: float, run: Run) -> bool:
    """Let time pass; whether the workflow is still at work."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and run.process.poll() is None:
        time.sleep(0.02)
    return run.process.poll() is None
