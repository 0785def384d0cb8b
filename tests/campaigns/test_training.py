from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaigns.training import Training, campaign


@pytest.mark.slow
def test_a_training_survives_two_kills(tmp_path: Path) -> None:
    outcome = campaign(2, 1, Training.tiny(tmp_path / "world"), tmp_path)
    assert outcome.kills == 2
    assert len(outcome.steps) == 2
    assert 0 < outcome.steps[0] < outcome.steps[1] < 50
