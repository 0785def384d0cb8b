from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from discovla import cards
from discovla.cards import take_card

TAKE = """
import sys
from pathlib import Path
from discovla.cards import take_card
print(take_card(sys.argv[2:], Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(autouse=True)
def nothing_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "_held", {})


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a process that takes one of the cards and stays."""
    running: list[subprocess.Popen[str]] = []

    def begin(*names: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", TAKE, str(tmp_path / "locks"), *names]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def test_processes_that_start_together_take_a_card_each(
    start: Callable[..., subprocess.Popen[str]],
) -> None:
    names = [f"GPU-{n}" for n in range(4)]
    processes = [start(*names) for _ in range(6)]
    taken = [said(process) for process in processes]
    assert sorted(taken) == ["0", "1", "2", "3", "None", "None"]
    # One is killed: its card is free again at once.
    killed = processes[taken.index("2")]
    killed.kill()
    killed.wait()
    assert said(start(*names)) == "2"


def test_jobs_that_see_one_card_only_take_it(start: Start) -> None:
    """As under SLURM: the same place, but other cards."""
    assert [said(start(f"GPU-{n}")) for n in (3, 1)] == ["0", "0"]
    assert said(start("GPU-1", "GPU-2", "GPU-3")) == "1"


def test_a_process_keeps_its_card(tmp_path: Path) -> None:
    assert [take_card(["a/b", "c"], tmp_path) for _ in range(3)] == [0, 0, 0]
    assert take_card(["c", "a/b"], tmp_path) == 1


def test_no_place_for_locks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert take_card(["a"], tmp_path / "file") is None
    assert "no locks" in caplog.text
