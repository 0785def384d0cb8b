"""Curve and progress lines on their own."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from discovla.training import progress as module
from discovla.training.progress import Curve, Progress

ROW = {"step": 5, "lr": 1e-3, "loss": 2.0, "grad_norm": 1.0, "samples_per_second": 10.0}


def test_curve_is_written_whole(tmp_path: Path) -> None:
    curve = Curve(tmp_path / "curve.csv")
    curve.write()
    assert not curve.path.exists()
    for step in (1, 2):
        curve.rows.append({**ROW, "step": step, "loss": 1 / step})
        curve.write()
    header, *lines = curve.path.read_text().splitlines()
    assert header == "step,lr,loss,grad_norm,samples_per_second"
    assert lines == ["1,0.001,1.0,1.0,10.0", "2,0.001,0.5,1.0,10.0"]


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
