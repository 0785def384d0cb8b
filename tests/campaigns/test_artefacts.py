from __future__ import annotations

from pathlib import Path

import pytest

from discovla.data import tables
from discovla.storage import files, tensors
from tests.campaigns import artefacts
from tests.campaigns.artefacts import ARTEFACTS, run


def test_no_damage_is_read_as_something_else() -> None:
    outcomes = run(cases=40 * len(ARTEFACTS), seed=0)
    assert not [outcome for outcome in outcomes if outcome.fault]
    assert sum(outcome.result == "refused" for outcome in outcomes) > 35 * len(ARTEFACTS)


@pytest.mark.parametrize("seal", ["tensors", "tables", "records"])
def test_without_a_checksum_the_campaign_finds_faults(
    monkeypatch: pytest.MonkeyPatch, seal: str
) -> None:
    if seal == "records":
        monkeypatch.setattr(files, "_json_hash", lambda value: "")
    else:
        module = {"tensors": tensors, "tables": tables}[seal]
        monkeypatch.setattr(module, "check_seal", lambda path, *advice: Path(path).exists())
    suffix = {"tensors": ".safetensors", "tables": ".parquet", "records": ".json"}[seal]
    monkeypatch.setattr(artefacts, "ARTEFACTS", [a for a in ARTEFACTS if a.name.endswith(suffix)])
    assert any(outcome.fault for outcome in run(cases=150, seed=0))
