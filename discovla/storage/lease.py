"""Leases: of several starts of the same long job one works, the others wait for its result.

A file `{output}.lease` names the process at work and is changed by it every few seconds. Its
maker is known to have ended when its process is gone (seen on the same machine), or when the file
has not changed for `PATIENCE` seconds while the waiting process watched it: clocks of two machines
are never compared, and file locks, which not every shared disk carries to other machines, are not
used. docs/faults.md says what a user sees.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from discovla.errors import UserError
from discovla.storage.files import temporary_prefix, writing
from discovla.storage.owners import Process, this_process

log = logging.getLogger(__name__)

BEAT = 10.0
"""Seconds between two changes of the file by its owner."""
PATIENCE = 180.0
"""Seconds without a change after which an owner on another machine is taken to have ended."""
SETTLING, SETTLING_AFAR = 0.5, 5.0
"""Seconds after which one of several processes that take over at the same time is left: from an
owner on this machine, and from one on another, where the disk between them may be slow."""
POLL = 1.0
"""Seconds between two looks of a waiting process."""
REMIND = 30.0
"""Seconds between two messages of a waiting process."""
_JOBS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")


@dataclass(frozen=True)
class Owner:
    """Who holds a lease."""

    host: str
    process: Process
    job: str | None
    """Number of its batch job."""
    since: str
    """When it began, by its own clock."""
    token: str
    """Of no other lease."""

    @classmethod
    def me(cls) -> Owner:
        """This process, from now on."""
        job = next((os.environ[name] for name in _JOBS if os.environ.get(name)), None)
        since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        return cls(socket.gethostname(), this_process(), job, since, secrets.token_hex(8))

    @classmethod
    def parse(cls, content: bytes) -> Owner | None:
        """The owner a lease file names; None if it is damaged or being written."""
        try:
            found = json.loads(content)["owner"]
            return cls(**{**found, "process": Process(**found["process"])})
        except (ValueError, TypeError, KeyError):
            return None

    def content(self, beat: int) -> bytes:
        """What the lease file holds; always of the same length."""
        return f"{json.dumps({'owner': asdict(self), 'beat': f'{beat:012d}'})}\n".encode()

    def __str__(self) -> str:
        job = f", job {self.job}" if self.job else ""
        return f"process {self.process.pid} on {self.host}{job}, at work since {self.since}"


class Lease:
    """One process's claim to be the one that makes `output`."""

    def __init__(self, output: str | Path) -> None:
        self.output = Path(output)
        self.path = Path(f"{output}.lease")
        self.waited_for: Owner | None = None
        """Who was at work when this process came."""
        self._made_folder = not self.path.parent.exists()
        self._before = _signature(self.output)
        self._owner = Owner.me()
        self._seen: tuple[bytes, float] | None = None
        self._reminded = float("-inf")
        self._stop = threading.Event()
        self._beats: threading.Thread | None = None

    @property
    def held(self) -> bool:
        """Whether this process has it."""
        return self._beats is not None

    def acquire(self) -> bool:
        """Try once; whether the lease is held now. Says now and then for whom it waits."""
        content = self._read()
        self._owner = Owner.me()
        if content is None:
            held = self._create()
        else:
            owner = Owner.parse(content)
            self.waited_for = owner or self.waited_for
            reason = self._ended(owner, content)
            if not reason:
                self._remind(owner)
                return False
            held = self._take_over(owner, content, reason)
        if held:
            self._beats = threading.Thread(target=self._beat, name="lease", daemon=True)
            self._beats.start()
        return held

    def release(self) -> None:
        """Give it back; nothing happens if it is not held."""
        if self._beats is None:
            return
        self._stop.set()
        self._beats.join()
        self._beats = None
        # The work is done: a disk that does not answer now leaves a lease behind, and no error.
        with contextlib.suppress(OSError):
            if self._is_mine():
                self.path.unlink(missing_ok=True)
        if self._made_folder:
            with contextlib.suppress(OSError):  # what was written there stays
                self.path.parent.rmdir()

    def made_meanwhile(self, read: Callable[[], object]) -> bool:
        """Whether the process waited for has finished the output.

        Args:
            read: opens the output; raises `UserError` where it is not what it should be.
        """
        if self.waited_for is None or _signature(self.output) in (None, self._before):
            return False
        try:
            read()
        except UserError as error:
            log.warning("made again: %s", error)
            return False
        log.info("%s: made by %s, nothing left to do", self.output, self.waited_for)
        return True

    def _read(self) -> bytes | None:
        try:
            return self.path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _is_mine(self) -> bool:
        owner = Owner.parse(self._read() or b"")
        return owner is not None and owner.token == self._owner.token

    @contextlib.contextmanager
    def _written(self) -> Iterator[Path]:
        """The file as this process writes it, under a name of its own."""
        # Named as other temporary files are, so that what a killed process leaves is removed.
        own = self.path.with_name(f"{temporary_prefix(self.path.name)}{self._owner.token}")
        with writing(self.path):
            own.parent.mkdir(parents=True, exist_ok=True)
            try:
                own.write_bytes(self._owner.content(0))
                yield own
            finally:
                own.unlink(missing_ok=True)

    def _create(self) -> bool:
        """Make the file unless another process has made one; exactly one of several succeeds."""
        with self._written() as own:
            try:
                os.link(own, self.path)
            except FileExistsError:
                return self._is_mine()  # over a network a link may succeed and its answer be lost
            except OSError:  # a file system without links
                return self._create_without_links()
            return True

    def _create_without_links(self) -> bool:
        try:
            with self.path.open("xb") as file:
                file.write(self._owner.content(0))
        except FileExistsError:
            return False
        return True

    def _ended(self, owner: Owner | None, content: bytes) -> str:
        """How one knows that an owner works no more; "" while it may be at work."""
        if owner and owner.process.has_ended():
            return "that process has ended"
        now = time.monotonic()
        if self._seen is None or self._seen[0] != content:
            self._seen = (content, now)
        if now - self._seen[1] > PATIENCE:
            return f"no sign of life for {PATIENCE:.0f} s"
        return ""

    def _take_over(self, owner: Owner | None, content: bytes, reason: str) -> bool:
        """Replace the file of an owner that has ended; of several that do it, the last one wins."""
        with self._written() as own:
            if self._read() != content:
                return False
            own.replace(self.path)
        near = owner is not None and owner.process.has_ended()
        time.sleep(SETTLING if near else SETTLING_AFAR)
        if not self._is_mine():
            return False
        log.warning("%s: taken over from %s: %s", self.output, owner or "nobody known", reason)
        return True

    def _remind(self, owner: Owner | None) -> None:
        now = time.monotonic()
        if now - self._reminded < REMIND:
            return
        self._reminded = now
        log.warning(
            "%s: waiting for %s. It is made once: its result is taken when it is there, and the "
            "work is taken over if that process ends. (%s)",
            *(self.output, owner or "a process that does not say who it is", self.path),
        )

    def _beat(self) -> None:
        beat = 0
        while not self._stop.wait(BEAT):
            beat += 1
            # A shared disk that does not answer for a moment, or is full, is not a lease lost.
            with contextlib.suppress(OSError, UserError):
                if (content := self._read()) is None:
                    if self._create():
                        continue
                    content = self._read() or b""
                owner = Owner.parse(content)
                # What names nobody is this process's own, damaged.
                if owner is not None and owner.token != self._owner.token:
                    self._give_way()
                with self.path.open("rb+") as file:
                    file.write(self._owner.content(beat))
                    file.flush()
                    os.fsync(file.fileno())

    def _give_way(self) -> None:
        """End at once, as if killed: another process believes that this one has ended."""
        other = Owner.parse(self._read() or b"")
        log.error(
            "error: %s was taken over by %s, because this process gave no sign of life for long "
            "(suspended, or a disk that did not answer). It ends here; nothing is lost.",
            *(self.output, other or "another process"),
        )
        os._exit(UserError.exit_code)


def _signature(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is replaced."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


@contextlib.contextmanager
def hold(
    output: str | Path, *, leads: bool = True, anyone: Callable[[bool], bool] = bool
) -> Iterator[Lease]:
    """Be the only process that makes `output` while the block runs; wait for it if need be.

    Args:
        output: the file, or one that stands for all files of the job.
        leads: whether this process claims it for itself, or follows one of its group that does.
        anyone: tells all processes of a group whether any of them says yes (`World.any`), so that
            all wait while the first one waits.

    Yields:
        The lease, which knows whether the output was `made_meanwhile`.

    Raises:
        UserError: the lease cannot be written.
    """
    lease = Lease(output)
    try:
        while anyone(leads and not (lease.held or lease.acquire())):
            time.sleep(POLL)
        yield lease
    finally:
        lease.release()


@dataclass(frozen=True)
class Found:
    """A lease file as `survey` finds it."""

    path: Path
    owner: Owner | None
    """None if the file is damaged."""
    state: str
    """`at work` or `ended` (seen on this machine), `signs of life` or `silent` (while watched)."""

    @property
    def is_over(self) -> bool:
        """Whether nobody seems to work under it any more."""
        return self.state in ("ended", "silent")


def survey(folders: Iterable[str | Path], watch: float = 2.5 * BEAT) -> list[Found]:
    """All leases below some folders, and whether their owners are at work.

    Args:
        folders: where to look.
        watch: seconds for which leases of other machines are watched, if there are any.
    """
    before: dict[Path, bytes] = {}
    for folder in folders:
        for path in sorted(Path(folder).rglob("*.lease")):
            with contextlib.suppress(OSError):  # given back meanwhile
                before[path] = path.read_bytes()
    owners = {path: Owner.parse(content) for path, content in before.items()}
    if any(owner is None or not owner.process.is_of_here for owner in owners.values()):
        time.sleep(watch)
    found = []
    for path, owner in owners.items():
        with contextlib.suppress(OSError):
            now = path.read_bytes()
            if owner is not None and owner.process.is_of_here:
                state = "ended" if owner.process.has_ended() else "at work"
            else:
                state = "silent" if now == before[path] else "signs of life"
            found.append(Found(path, owner, state))
    return found
