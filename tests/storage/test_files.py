"""Atomic writing: what is there is whole, and what dead processes left goes."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import save_file

from discovla.errors import UserError
from discovla.storage import files
from discovla.storage.files import atomic_path, atomic_write, write_json
from discovla.storage.folders import replaced_folder
from discovla.storage.owners import this_process


@pytest.fixture(autouse=True)
def _nothing_cleaned_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_cleaned", set())


def left_by(pid: int, *, machine: str | None = None, started: int = 1) -> str:
    return f".table1.tmp-{machine or this_process().machine}-{pid}-{started}.k3_x9.csv"


def dead() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_leftovers_of_dead_processes_are_removed(tmp_path: Path) -> None:
    own = this_process()
    gone = {left_by(dead()), left_by(own.pid, started=own.started + 1)}
    old = left_by(7, machine="f" * 8)
    stay = {left_by(own.pid, started=own.started), left_by(8, machine="f" * 8), ".table1.x.csv"}
    for name in {*gone, *stay, old}:
        (tmp_path / name).write_text("half")
    os.utime(tmp_path / old, (0, 0))
    write_json(tmp_path / "metrics.json", {})
    assert {path.name for path in tmp_path.iterdir()} == {*stay, "metrics.json"}


def test_folders_are_cleaned_too(tmp_path: Path) -> None:
    left = tmp_path / f".world.tmp-{this_process().machine}-{dead()}-1.abc"
    (left / "new").mkdir(parents=True)
    with replaced_folder(tmp_path / "world", {"videos"}) as folder:
        (folder / "videos").mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["world"]


def test_a_killed_writer_leaves_what_the_next_one_removes(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from discovla.storage.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as handle:\n"
        "    handle.write('half'); handle.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "x.csv"
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    assert not path.exists()
    assert len(list(tmp_path.iterdir())) == 1
    with atomic_write(path) as handle:
        handle.write("whole")
    assert [found.name for found in tmp_path.iterdir()] == ["x.csv"]
    assert path.read_text() == "whole"


def test_long_names_keep_their_suffix(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 120 + ".mp4")
    with atomic_path(path) as temporary:
        assert temporary.suffix == ".mp4"
    assert path.exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_what_the_system_says_is_told_with_what_to_do(tmp_path: Path, number: int) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(UserError) as caught, atomic_write(path):
        raise OSError(number, os.strerror(number))
    assert str(path) in str(caught.value)
    assert os.strerror(number) in str(caught.value)
    assert "run again" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    for error in (FileNotFoundError(2, "no", "elsewhere"), ValueError("x")):
        with pytest.raises(type(error)), atomic_write(tmp_path / "x.json"):
            raise error
    with pytest.raises(PermissionError), atomic_write(tmp_path / "x.json"):
        raise PermissionError(errno.EACCES, "no", "/elsewhere/input.json")


def _safetensors(path: Path) -> None:
    save_file({"x": np.zeros(1 << 16)}, path)


def _arrow(path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink:
        sink.write(bytes(1 << 20))


def _text(path: Path) -> None:
    path.write_text("x" * (1 << 20))


@pytest.mark.parametrize("write", [_safetensors, _arrow, _text])
def test_libraries_that_meet_a_limit_are_understood(tmp_path: Path, write: object) -> None:
    """A real limit of file sizes, as safetensors, Arrow and Python report it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, before[1]))
    try:
        with (
            pytest.raises(UserError, match="File too large"),
            atomic_path(tmp_path / "x.bin") as path,
        ):
            write(path)  # type: ignore[operator]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())
