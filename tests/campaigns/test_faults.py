from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaigns.faults import campaign


@pytest.mark.slow
def test_the_workflow_survives_a_sample_of_faults(tmp_path: Path) -> None:
    found = campaign(8, seed=7, root=tmp_path, side_by_side=1)
    assert not found.problems
    assert len(found.records) >= 6
