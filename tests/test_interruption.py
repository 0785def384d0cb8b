"""Signals, and what becomes of a SLURM job that is preempted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from discovla import cli
from discovla.interruption import (
    TERMINATED,
    StopRequest,
    Terminated,
    done,
    requeue_if_preempted,
    terminable,
)


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def test_a_second_ctrl_c_ends_at_once_and_a_second_sigterm_does_nothing() -> None:
    with StopRequest() as stop:
        stop.obey()
        assert not stop.requested
        send(signal.SIGTERM)
        assert stop.requested
        send(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
)
def test_a_stop_is_obeyed_by_the_error_of_its_signal(
    number: signal.Signals, error: type[BaseException]
) -> None:
    with StopRequest() as stop:
        send(number)
        with pytest.raises(KeyboardInterrupt) as found:
            stop.obey()
    assert type(found.value) is error


def test_a_stop_asked_of_another_process_is_obeyed_too() -> None:
    stop = StopRequest()
    stop.obey(False)
    with pytest.raises(KeyboardInterrupt):
        stop.obey(True)


def test_sigterm_lets_cleaning_up_happen_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    cleaned = []

    def work() -> None:
        with terminable():
            try:
                send(signal.SIGTERM)
            finally:
                send(signal.SIGTERM)
                cleaned.append(True)

    with pytest.raises(Terminated):
        work()
    assert cleaned
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_command_ended_by_sigterm_says_so_and_leaves_no_half_file(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from discovla import cli\n"
        "from discovla.storage import files\n"
        "from discovla.cli import methods\n"
        "def run(args):\n"
        f"    with files.atomic_path({str(tmp_path / 'out')!r}) as path:\n"
        "        path.write_text('half')\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "methods.run = run\n"
        "sys.exit(cli.main(['methods']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == TERMINATED, done.stderr
    assert "ended by SIGTERM" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_command_that_is_done_is_not_ended_by_sigterm_any_more() -> None:
    """Snakemake would remove its output as that of a failed job."""
    code = (
        "import atexit, os, runpy, signal, sys\n"
        "atexit.register(os.kill, os.getpid(), signal.SIGTERM)\n"
        "sys.argv = ['discovla', 'methods', *sys.argv[1:]]\n"
        "runpy.run_module('discovla', run_name='__main__')\n"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    failed = subprocess.run([*command, "--json", "--no-such"], capture_output=True, check=False)
    assert failed.returncode == -signal.SIGTERM


def test_done_holds_until_the_command_has_ended() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with terminable():
        done()
        send(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


SCONTROL = """#!/bin/sh
echo "$@" >> {calls}
echo 'JobId=7 JobState={state} Comment=x PreemptTime={when} SuspendTime=None'
"""


@pytest.mark.parametrize(
    ("state", "when", "rank", "back"),
    [
        ("RUNNING", "2026-01-01T00:00:00", "0", True),
        ("RUNNING", "2026-01-01T00:00:00", "1", False),  # one process of several is enough
        ("RUNNING", "None", "0", False),  # cancelled, or out of time
        ("FAILED", "2026-01-01T00:00:00", "0", False),  # the job has ended without this process
    ],
)
def test_a_preempted_slurm_job_goes_back_into_the_queue(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    state: str,
    when: str,
    rank: str,
    back: bool,
) -> None:
    calls = tmp_path / "calls"
    program = tmp_path / "scontrol"
    program.write_text(SCONTROL.format(calls=calls, state=state, when=when))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("RANK", rank)
    requeue_if_preempted()
    said = calls.read_text() if calls.exists() else ""
    assert ("requeue 7" in said) == back


def test_without_scontrol_the_job_just_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    requeue_if_preempted()
    assert "not put back into the queue" in caplog.text
    monkeypatch.delenv("SLURM_JOB_ID")
    caplog.clear()
    requeue_if_preempted()
    assert not caplog.text


def test_exit_codes_are_those_of_a_shell() -> None:
    assert (cli.INTERRUPTED, TERMINATED) == (128 + signal.SIGINT, 128 + signal.SIGTERM)
