from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaigns.frames import campaign


@pytest.mark.slow
def test_the_frame_stage_survives_three_kills(tmp_path: Path) -> None:
    outcome = campaign(3, seed=1, folder=tmp_path)
    assert outcome.kills == 3
    assert outcome.with_leftovers > 0
