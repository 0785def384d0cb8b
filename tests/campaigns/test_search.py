from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaigns.search import campaign


@pytest.mark.slow
def test_the_index_survives_two_kills(tmp_path: Path) -> None:
    outcome = campaign(2, seed=1, folder=tmp_path, clips=6)
    assert outcome.kills == 2
