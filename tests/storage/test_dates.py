from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from discovla.cli import main
from discovla.errors import UserError
from discovla.storage.dates import AHEAD, check_dates

COMMANDS = {
    "sample-frames": ["--clips", "c", "--root", ".", "--shard", "1-of-1", "--frames", "2"]
    + ["--frames-id", "a"],
    "caption": ["--frames", "f", "--captions-id", "a", "--kind", "guided"],
    "train": ["--config", "c", "--frames", "f", "--seed", "0"],
    "features": ["--config", "c", "--split", "test", "--seed", "0"],
}


def dated(path: Path, ahead: float) -> Path:
    path.touch()
    os.utime(path, (time.time(), time.time() + ahead))
    return path


def test_files_of_the_future_are_refused_wherever_they_lie(tmp_path: Path) -> None:
    present, near = dated(tmp_path / "present", 0), dated(tmp_path / "near", AHEAD - 30)
    check_dates(present, None, tmp_path / "not there", near, tmp_path)
    future = dated(tmp_path / "frames.arrow", AHEAD + 30)
    for inputs in ((future,), (None, present, str(tmp_path))):
        with pytest.raises(UserError, match=r"frames\.arrow: dated .* touch .*frames\.arrow"):
            check_dates(*inputs)


@pytest.mark.parametrize("command", COMMANDS)
def test_long_commands_refuse_before_they_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    dated(tmp_path / "annotations.parquet", 3600)
    own = [*COMMANDS[command], "--annotations", "annotations.parquet", "--output", "out/file"]
    assert main([command, *own]) == 1
    assert "annotations.parquet: dated" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
