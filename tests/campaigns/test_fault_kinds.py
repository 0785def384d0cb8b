"""The judgements of the fault campaign can fail: what it would let pass, it would not notice."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.campaigns.fault_kinds import NO_EFFECT, Stage, _judge, damage, named
from tests.campaigns.fault_place import Place

NAME = "resources/demo/frames/0123456789/1-of-2.arrow"
LISTED = f"""\
localrule train:
    input: results/demo/runs/x/config.json, {NAME}
    reason: Missing output files: a; Input files updated by another job: {NAME}
RuleException in file train.smk
"""


@pytest.mark.parametrize(
    ("said", "clear"),
    [
        ("", False),
        (f"pyarrow.lib.ArrowInvalid: {NAME}: not an Arrow file", False),
        (f"  File {NAME}", False),
        (f"{NAME}: damaged: the checksum of its footer differs. Remove it and run again.", True),
        (f"/tmp/x/demo/{NAME}: cannot be read as a shard of frames. Remove it.", True),
    ],
)
def test_a_list_of_inputs_or_a_crash_is_no_clear_error(said: str, clear: bool) -> None:
    record = _judge("damaged arrow file", "frames: flip", 1, LISTED + said, named(NAME))
    assert record.is_fault != clear
    assert record.seen == (said if clear else "")


SOUND = bytes(range(200))


@dataclass
class Workflow(Place):
    """One rule: the target is a copy of the input, or of what the input should be."""

    checks: bool = False

    def run(self, *arguments: str) -> tuple[int, str]:
        source = self.folder / "input.json"
        content = source.read_bytes() if source.exists() else SOUND
        source.write_bytes(content)
        if self.checks and content != SOUND:
            return 1, "input.json: not valid JSON. Remove it and run again."
        (self.folder / arguments[0]).write_bytes(content)
        return 0, ""


@pytest.mark.parametrize("checks", [True, False])
def test_damage_that_is_used_is_noticed(tmp_path: Path, checks: bool) -> None:
    place = Workflow(tmp_path, tmp_path / "said", checks=checks)
    outcomes = []
    for seed in range(10):
        (tmp_path / "input.json").write_bytes(SOUND)
        stage = Stage(("target.csv",), ("input.json",))
        records = list(damage(place, stage, random.Random(seed), 1))
        outcomes += [(record.outcome, record.is_fault) for record in records]
        assert (tmp_path / "target.csv").read_bytes() == SOUND
    if checks:
        assert set(outcomes) == {("clear error", False)}
    else:
        assert set(outcomes) == {(NO_EFFECT, False), ("what was damaged was used", True)}
