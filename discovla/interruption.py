"""How running work is asked to stop: SIGINT (Ctrl-C) and SIGTERM (a cluster wants its node)."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

LOG = logging.getLogger(__name__)
INTERRUPTED, TERMINATED = 130, 143
"""Exit codes: 128 + the number of the signal."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, where Ctrl-C is a KeyboardInterrupt: what is half-written is removed on the way."""


class StopRequest:
    """Signals that ask for a stop while the block runs, so that work can first be saved.

    The first sets `requested`; a second SIGINT ends the program at once. Further SIGTERMs change
    nothing: SLURM sends one to every process of a job, and torchrun another to those it started.
    Outside of the main thread signals stay as they are.

    Args:
        numbers: the signals.
    """

    def __init__(self, *numbers: signal.Signals) -> None:
        self._numbers = numbers or (signal.SIGINT, signal.SIGTERM)
        self._first: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self._first is not None

    def obey(self, requested: bool | None = None) -> None:
        """Leave by `Terminated` or KeyboardInterrupt if a stop is requested, here or elsewhere."""
        if self._first == signal.SIGTERM:
            raise Terminated
        if self.requested or requested:
            raise KeyboardInterrupt

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in self._numbers:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._first is None:
            self._first = number
            LOG.warning("%s: finishing what runs, then saving", signal.Signals(number).name)
        elif number == signal.SIGINT:
            raise KeyboardInterrupt


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM raises `Terminated` while the block runs, instead of ending the program where it is.

    A second one changes nothing, so that cleaning up is not cut short.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def done() -> None:
    """Ignore SIGTERM from here on: the command has made what it was started for.

    Snakemake removes the output of a job that ends with an error, and the state from which the work
    could have gone on is gone by then. `terminable` takes it back where its block ends.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def requeue_if_preempted() -> None:
    """Put this SLURM job back into the queue if SLURM is about to give its node to another one.

    SLURM itself puts back only what it had to kill: a job that saves and ends within its grace
    period counts as failed. Nothing is done for a job that was cancelled or has used up its time,
    nor outside of SLURM. Where it cannot be done, the job ends as failed and is for Snakemake's
    `retries`.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or os.environ.get("RANK", "0") != "0":
        return
    try:
        told = _scontrol("--oneliner", "show", "job", job)
        fields = dict(re.findall(r"(?:^| )(JobState|PreemptTime)=(\S+)", told))
        if fields.get("JobState") == "RUNNING" and fields.get("PreemptTime", "None") != "None":
            LOG.warning("SLURM job %s is being preempted: back into the queue", job)
            _scontrol("requeue", job)
    except (OSError, subprocess.SubprocessError) as error:
        LOG.warning("SLURM job %s was not put back into the queue: %s", job, error)


def _scontrol(*arguments: str) -> str:
    command = ["scontrol", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=15).stdout
