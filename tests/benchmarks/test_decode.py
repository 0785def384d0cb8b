from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.decode import KINDS, compare, main, readers, render, split_exact


def test_kinds_are_different_and_readers_agree(tmp_path: Path) -> None:
    kind = replace(KINDS[2], n_frames=40, repeat=1)
    timings, inexact, note = compare(kind, tmp_path, rounds=1)
    assert {"auto", "pyav"} <= {timing.name for timing in timings}
    assert not set(inexact) & {"auto", "pyav"}
    assert note.startswith("from key frames")


def test_a_reader_with_other_frames_is_not_timed(tmp_path: Path) -> None:
    ways = readers(render(replace(KINDS[0], n_frames=20), tmp_path), 4)
    truth = ways["pyav"]()
    wrong = replace(truth, frames=truth.frames[::-1])
    exact, inexact = split_exact({**ways, "pyav": lambda: wrong}, truth)
    assert "auto" in exact
    assert "pyav" in inexact


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--rounds", "1", "--longest", "15"])
    said = capsys.readouterr().out
    for kind in KINDS:
        assert f"\n{kind.name}" in said
