"""What stands last on the screen when jobs have failed."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.run import ROOT

# As Snakemake 9 prints them: a rule that fails twice, one that succeeds at last, a group of two.
SAID = """\
Error in rule train:
    message: None
    jobid: 3
    input: a
    log: {folder}/train.log (check log file(s) for error details)
Trying to restart job 3.
Error in rule train:
    jobid: 3
    log: {folder}/train.log (check log file(s) for error details)
Error in rule features:
    jobid: 4
    log: {folder}/features.log (check log file(s) for error details)
Finished jobid: 4 (Rule: features)
Error in group captions:
    jobs:
        rule caption_shard:
            jobid: 5
            log: {folder}/1-of-2.log (check log file(s) for error details)
        rule caption_shard:
            jobid: 6
            log: {folder}/2-of-2.log (check log file(s) for error details)
Error in rule caption_shard:
    jobid: 5
    log: {folder}/1-of-2.log (check log file(s) for error details)
Error in rule caption_shard:
    jobid: 6
    log: {folder}/2-of-2.log (check log file(s) for error details)
"""


@pytest.fixture
def explain() -> Callable[[str], None]:
    """The workflow's own function; a rule file is Python but for the names that it is given."""
    source = (ROOT / "workflow" / "rules" / "common" / "targets.smk").read_text()
    names: dict[str, Any] = {"re": re, "Path": Path, "shutil": shutil, "sys": sys}
    exec(compile(source, "targets.smk", "exec"), names)
    return names["explain_failures"]


def test_each_failure_is_explained_once_and_last(
    tmp_path: Path, explain: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    logs = {
        "train": "reading\nerror: x.parquet: damaged\nRemove it and run again.\n",
        "features": "error: mended meanwhile\n",
        "1-of-2": "",
        "2-of-2": "12:00:00 INFO loading\n  1%|\r 50%|\r100%|####| 7/7 [00:01]",
    }
    for name, text in logs.items():
        (tmp_path / f"{name}.log").write_text(text)
    (tmp_path / "snakemake.log").write_text(SAID.format(folder=tmp_path))
    explain(str(tmp_path / "snakemake.log"))
    assert capsys.readouterr().err == (
        f"\nx.parquet: damaged\nRemove it and run again.\n(log: {tmp_path}/train.log)\n"
        f"\nIts log is empty.\n(log: {tmp_path}/1-of-2.log)\n"
        "\nIts log ends with: 100%|####| 7/7 [00:01]\n"
        f"(log: {tmp_path}/2-of-2.log)\n"
    )


def test_an_empty_log_on_a_full_disk_is_told(
    tmp_path: Path,
    explain: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "train.log").write_text("")
    (tmp_path / "snakemake.log").write_text(SAID.format(folder=tmp_path))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=4096))
    explain(str(tmp_path / "snakemake.log"))
    assert f"\nNo space left on device: {tmp_path} has 4,096 bytes" in capsys.readouterr().err
