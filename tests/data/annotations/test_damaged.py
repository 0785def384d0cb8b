"""A sample of the campaign: `python -m tests.campaigns.annotations --cases 2000` is the whole."""

from __future__ import annotations

from collections import Counter

import pytest

from discovla.data.annotations import READERS, didemo
from tests.campaigns import annotations as campaign


def test_no_damage_goes_unnoticed_or_crashes_a_reader() -> None:
    outcomes = campaign.run(cases=220, seed=7)
    assert [outcome for outcome in outcomes if outcome.fault] == []
    counts = Counter(outcome.result for outcome in outcomes)
    assert counts["refused"] > 50
    assert counts["read"] > 20
    assert {name for name, _, _ in campaign.SUBJECTS} == READERS.keys()


def test_the_campaign_would_see_lost_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = didemo._entries
    monkeypatch.setattr(didemo, "_entries", lambda path: entries(path)[:1])
    outcomes = campaign.run(cases=88, seed=0)
    assert any("lost" in outcome.fault and "didemo" in outcome.case for outcome in outcomes)
