"""Leases between real processes: one works, others wait, and the dead are replaced."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from discovla.errors import UserError
from discovla.storage import lease as module
from discovla.storage.lease import Lease, Owner, hold
from discovla.storage.owners import Process, this_process

# Appends a line when its work begins and one when it ends; `seconds` is how long that takes.
WORKER = """
import logging, os, sys, time
from pathlib import Path
from discovla.storage import lease
logging.basicConfig(level=logging.INFO, format="%(message)s")
lease.POLL, lease.REMIND, lease.SETTLING, lease.SETTLING_AFAR = 0.05, 0.2, 0.3, 0.3
lease.BEAT, lease.PATIENCE = float(sys.argv[3]), float(sys.argv[4])
output, seconds = Path(sys.argv[1]), float(sys.argv[2])
diary = output.with_suffix(".diary")
def note(text):
    with diary.open("a") as file:
        file.write(text + "\\n")
for gate in sys.argv[5:]:  # all start together
    Path(gate, str(os.getpid())).touch()
    while not Path(gate, "open").exists():
        time.sleep(0.01)
with lease.hold(output) as held:
    if not held.made_meanwhile(output.read_text):
        note("begin")
        time.sleep(seconds)
        output.write_text("the result")
        note("end")
"""


def start(
    output: Path,
    seconds: float,
    *,
    beat: float = 0.1,
    patience: float = 60.0,
    gate: Path | None = None,
) -> subprocess.Popen[str]:
    arguments = [str(output), str(seconds), str(beat), str(patience)]
    arguments += [str(gate)] if gate else []
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, *arguments], stderr=subprocess.PIPE, text=True
    )


def until(condition: object, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.02)


@contextmanager
def ended(*processes: subprocess.Popen[str]) -> Iterator[None]:
    """None of them outlives a test that fails."""
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


@contextmanager
def together(
    count: int, output: Path, seconds: float, gate: Path
) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that reach for the lease at the same moment."""
    gate.mkdir()
    processes = [start(output, seconds, gate=gate) for _ in range(count)]
    with ended(*processes):
        until(lambda: len(list(gate.iterdir())) == count, 60)
        (gate / "open").touch()
        yield processes


def diary(output: Path) -> list[str]:
    path = output.with_suffix(".diary")
    return path.read_text().split() if path.exists() else []


def elsewhere(content: bytes) -> bytes:
    """The same lease, of a process on another machine."""
    found = json.loads(content)
    found["owner"]["process"]["machine"] = "f" * 8
    found["owner"]["host"] = "node7"
    return json.dumps(found).encode()


def test_eight_starts_at_once_work_once(output: Path, tmp_path: Path) -> None:
    with together(8, output, 1, tmp_path / "gate") as processes:
        said = [process.communicate(timeout=60)[1] for process in processes]
        assert [process.returncode for process in processes] == [0] * 8
    assert diary(output) == ["begin", "end"]
    waited = [text for text in said if "waiting for process" in text]
    assert len(waited) == 7
    assert all("nothing left to do" in text for text in waited)
    assert sorted(path.name for path in output.parent.iterdir()) == [
        "adapter.diary",
        "adapter.safetensors",
    ]


def test_the_owner_is_named(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setattr(module, "REMIND", 0.2)
    with hold(output):
        process = start(output, 0)
        with ended(process):
            assert process.stderr is not None
            first = process.stderr.readline()
    assert f"waiting for process {os.getpid()} on " in first
    assert "job 4711, at work since 20" in first
    assert f"({output}.lease)" in first


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_work_of_a_killed_process_is_taken_over(output: Path, number: int) -> None:
    first = start(output, 600)
    with ended(first):
        until(lambda: diary(output) == ["begin"])
        second = start(output, 0)
        with ended(second):
            time.sleep(1)
            assert diary(output) == ["begin"], "it did not wait"
            first.send_signal(number)
            first.wait()
            said = second.communicate(timeout=60)[1]
    assert second.returncode == 0
    assert "taken over from process" in said
    assert "that process has ended" in said
    assert diary(output) == ["begin", "begin", "end"]
    assert not Path(f"{output}.lease").exists()


def test_of_many_that_take_over_one_works(output: Path, tmp_path: Path) -> None:
    first = start(output, 600)
    with ended(first):
        until(lambda: diary(output) == ["begin"])
        with together(6, output, 1.5, tmp_path / "gate") as others:
            time.sleep(1.5)
            first.kill()
            first.wait()
            for process in others:
                process.communicate(timeout=60)
            assert [process.returncode for process in others] == [0] * 6
    assert diary(output) == ["begin", "begin", "end"]


def test_an_owner_on_another_machine_is_judged_by_its_signs_of_life(output: Path) -> None:
    """Its clock is wrong by years and its process number exists here: neither matters."""
    path = Path(f"{output}.lease")
    path.parent.mkdir()
    foreign = Owner("node7", Process("f" * 8, os.getpid(), 1), None, "1970-01-01", "token")
    path.write_bytes(foreign.content(0))
    os.utime(path, (0, 0))
    waiting = start(output, 0, patience=1.0)
    with ended(waiting):
        for beat in range(1, 26):
            path.write_bytes(foreign.content(beat))
            os.utime(path, (0, 0))
            time.sleep(0.1)
        assert diary(output) == [], "it did not wait for a living owner"
        said = waiting.communicate(timeout=60)[1]
    assert "taken over from process" in said
    assert "on node7" in said
    assert "no sign of life for 1 s" in said
    assert diary(output) == ["begin", "end"]


def test_an_owner_that_was_suspended_gives_way(output: Path) -> None:
    first = start(output, 600)
    path = Path(f"{output}.lease")
    with ended(first):
        until(lambda: diary(output) == ["begin"])
        first.send_signal(signal.SIGSTOP)
        path.write_bytes(elsewhere(path.read_bytes()))  # so that its process cannot be asked
        second = start(output, 3, patience=0.5)
        with ended(second):
            until(lambda: diary(output) == ["begin", "begin"])
            first.send_signal(signal.SIGCONT)
            said = first.communicate(timeout=30)[1]
            assert first.returncode == UserError.exit_code
            assert "was taken over by process" in said
            assert second.wait(60) == 0
    assert diary(output) == ["begin", "begin", "end"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"owner": {"host": 1}}', b"\0" * 200])
def test_a_damaged_lease_does_not_stop_the_work_for_ever(output: Path, content: bytes) -> None:
    output.parent.mkdir()
    Path(f"{output}.lease").write_bytes(content)
    process = start(output, 0, patience=0.5)
    with ended(process):
        said = process.communicate(timeout=60)[1]
    assert "a process that does not say who it is" in said
    assert diary(output) == ["begin", "end"]


def test_signs_of_life_keep_the_length_of_the_file(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEAT", 0.02)
    seen = set()
    with hold(output) as lease:
        for _ in range(50):
            seen.add(lease.path.read_bytes())
            time.sleep(0.02)
    assert len(seen) > 5
    assert len({len(content) for content in seen if content}) == 1
    assert len({Owner.parse(content) for content in seen if content}) == 1


def test_a_lease_that_somebody_removed_is_written_again(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEAT", 0.05)
    with hold(output) as lease:
        lease.path.unlink()
        until(lease.path.exists)
        assert not Lease(output).acquire()
    assert not lease.path.exists()


def test_without_links_the_file_is_made_exclusively(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(module.os, "link", refuse)
    with hold(output):
        other = Lease(output)
        assert not other.acquire()
        assert other.waited_for is not None
        assert other.waited_for.process == this_process()


def test_a_result_from_before_is_not_taken(output: Path) -> None:
    output.parent.mkdir()
    output.write_text("of last week")
    with hold(output) as lease:
        other = Lease(output)
        assert not other.acquire()
        assert not other.made_meanwhile(lambda: None)
        output.write_text("new")
        assert other.made_meanwhile(lambda: None)

        def refuse() -> None:
            raise UserError("of another run")

        assert not other.made_meanwhile(refuse)
        assert not lease.made_meanwhile(lambda: None)


def test_followers_wait_with_their_leader(output: Path) -> None:
    """As `World.any` does it: everybody hears whether anybody waits."""
    barrier, flags = threading.Barrier(2), [False, False]
    order: list[str] = []

    def run(rank: int) -> None:
        def anyone(flag: bool) -> bool:
            flags[rank] = flag
            barrier.wait()
            found = any(flags)
            barrier.wait()
            return found

        with hold(output, leads=rank == 0, anyone=anyone):
            order.append("works")

    with hold(output):
        threads = [threading.Thread(target=run, args=(rank,)) for rank in (0, 1)]
        for thread in threads:
            thread.start()
        time.sleep(1.2)
        order.append("released")
    for thread in threads:
        thread.join(30)
    assert order == ["released", "works", "works"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    with (
        pytest.raises(UserError, match=r"x\.lease: cannot be written: File exists"),
        hold(file / "x"),
    ):
        pass


def test_an_owner_is_at_work_since_it_has_the_lease(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hold(output):
        waiting = Lease(output)
        assert not waiting.acquire()
    times = iter(["later", "later still"])
    me = Owner.me
    monkeypatch.setattr(Owner, "me", lambda: replace(me(), since=next(times)))
    assert waiting.acquire()
    try:
        owner = Owner.parse(waiting.path.read_bytes())
        assert owner is not None
        assert owner.since == "later"
    finally:
        waiting.release()
