from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaigns.captions import LARGEST_PART, campaign


@pytest.mark.slow
def test_the_caption_stage_survives_three_kills(tmp_path: Path) -> None:
    outcome = campaign(3, seed=3, folder=tmp_path, clips=100)
    assert outcome.kills == 3
    assert outcome.tables > 0
    assert outcome.largest_repeat <= LARGEST_PART
