"""The benchmark of compiled blocks sees what differs, and runs from its command line."""

from __future__ import annotations

import pytest
import torch

from benchmarks import compiled
from benchmarks.train import Result


def test_more_than_half_precision_is_not_timed() -> None:
    def result(gradient: float, loss: float = 1.0) -> Result:
        return torch.tensor(loss), {"a": torch.tensor([1.0, gradient])}

    compiled.check(result(0.5), result(0.6, 1.01), result(0.65, 1.01))
    with pytest.raises(SystemExit, match="gradients"):
        compiled.check(result(0.5), result(0.6, 1.01), result(0.8, 1.01))
    with pytest.raises(SystemExit, match="loss"):
        compiled.check(result(0.5), result(0.6, 1.01), result(0.5, 1.1))


def test_the_command_compares_blocks(capsys: pytest.CaptureFixture[str]) -> None:
    """Traced, but not compiled, which takes minutes."""
    options = ["--size", "demo", "--blocks", "1", "--batch", "2", "--rounds", "1"]
    compiled.main([*options, "--backend", "eager"])
    out = capsys.readouterr().out
    assert out.count("compiled in") == 3
    assert out.count("gradients off by") == 2
    assert out.count("  compiled  ") == 3
