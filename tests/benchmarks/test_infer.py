"""The benchmark of encoding compares what it times."""

from __future__ import annotations

import pytest
import torch

from benchmarks import infer
from benchmarks.train import Way


def test_the_command_compares_and_prints_rates(capsys: pytest.CaptureFixture[str]) -> None:
    infer.main(["--size", "demo", "--batch", "2", "--rounds", "1"])
    out = capsys.readouterr().out
    assert out.count("cosine >=") == 2 * 3  # while comparing, and in the rows
    rows = [line for line in out.splitlines() if line.startswith("| ")]
    assert rows[0] == "| way | CPU s | ratio | frames/s | features |"
    assert len(rows) == 1 + 4


def test_other_features_are_refused() -> None:
    features = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    steps = {"ours": Way(lambda: features), "wrong": Way(lambda: features.flip(0))}
    with pytest.raises(SystemExit, match="wrong"):
        infer.compare(steps)
    infer.compare({**steps, "wrong": Way(lambda: features.flip(0), exact=False)})
