"""The thin scripts, run without Snakemake."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

SCRIPTS = sorted(Path("workflow/scripts").glob("*.py"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_thin(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 25


def test_run_config_is_written_as_given(tmp_path: Path) -> None:
    output = tmp_path / "config.json"
    fake = SimpleNamespace(output=[str(output)], params=SimpleNamespace(config={"run_id": "x"}))
    runpy.run_path("workflow/scripts/write_run_config.py", init_globals={"snakemake": fake})
    assert json.loads(output.read_text()) == {"run_id": "x"}
