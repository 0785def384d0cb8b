"""Which process is which: whether the one that left something behind is still alive."""

from __future__ import annotations

import functools
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process, told apart from others of the same number before and after it."""

    machine: str
    """Of one start of one machine (and of one container where numbers are its own); "" = unknown.
    """
    pid: int
    started: int
    """Ticks between the start of the machine and that of the process: no clock can change it."""

    @property
    def is_of_here(self) -> bool:
        """Whether this machine (or container) is its own, and can tell whether it runs."""
        return bool(self.machine) and self.machine == _machine()

    def has_ended(self) -> bool:
        """Whether it is known that this process runs no more."""
        if not self.is_of_here:
            return False
        started = _start_of(self.pid)
        return _is_gone(self.pid) if started is None else started != self.started


@functools.cache
def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = Path("/proc/self/ns/pid").readlink()
    except OSError:
        return ""
    return hashlib.sha256(f"{boot} {space}".encode()).hexdigest()[:8]


def _start_of(pid: int) -> int | None:
    """When a process started; None if it cannot be seen, 0 if it has ended and nobody cares yet."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return 0 if state in "ZX" else int(fields[18])


def _is_gone(pid: int) -> bool:
    """Whether there is no such process; some machines hide those of other users."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def this_process() -> Process:
    """The process that asks."""
    pid = os.getpid()
    return Process(_machine(), pid, (_start_of(pid) if _machine() else None) or 0)
