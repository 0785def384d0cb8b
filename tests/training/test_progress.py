"""Curve and progress lines on their own."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from discovla.errors import UserError
from discovla.training import progress as module
from discovla.training.progress import Curve, Progress

ROW = {"step": 5, "lr": 1e-3, "loss": 2.0, "grad_norm": 1.0, "samples_per_second": 10.0}


def test_curve_goes_back_to_the_step_of_the_state(tmp_path: Path) -> None:
    first = Curve(tmp_path / "curve.csv")
    first.rows = [{**ROW, "step": step, "loss": 1 / step} for step in (1, 2, 3)]
    first.write()
    assert (tmp_path / "curve.csv").read_text().splitlines()[1].startswith("1,0.001,1.0,")
    again = Curve(tmp_path / "curve.csv")
    again.resume(2)
    assert again.rows == first.rows[:2]
    anew = Curve(tmp_path / "curve.csv")
    anew.resume(0)
    assert anew.rows == []


@pytest.mark.parametrize("content", ["step,lr\n1\n", "step,lr\nx,1\n", "lr\n1\n"])
def test_damaged_curve_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "curve.csv").write_text(content)
    with pytest.raises(UserError, match=r"curve\.csv: damaged"):
        Curve(tmp_path / "curve.csv").resume(1)


def test_log_lines_only_when_due(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    caplog.set_level(logging.INFO)
    progress = Progress("run seed 1", 20, 100, torch.device("cpu"))
    progress.update(21, ROW)
    assert not caplog.records
    now[0] += 10
    assert progress.is_due()
    progress.update(40, ROW)
    assert not progress.is_due()
    line = caplog.messages[-1]
    assert "step 40/100" in line
    assert "loss 2," in line
    assert "10.0" in line
    assert "ETA 0:00:30" in line  # 20 steps took 10 s, 60 are left
    progress.update(100, ROW)
    assert "step 100/100" in caplog.messages[-1]
    progress.close()
