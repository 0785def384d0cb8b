"""The thin scripts, run without Snakemake."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from discovla.errors import CheckFailed
from discovla.scripting import logged_to
from discovla.storage.files import read_record

SCRIPTS = sorted(Path("workflow/scripts").glob("*.py"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_thin(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 25


def test_run_config_is_written_as_given(tmp_path: Path) -> None:
    output = tmp_path / "config.json"
    fake = SimpleNamespace(
        output=[str(output)],
        log=[str(tmp_path / "log")],
        params=SimpleNamespace(config={"run_id": "x"}),
    )
    runpy.run_path("workflow/scripts/write_run_config.py", init_globals={"snakemake": fake})
    assert read_record(output) == {"run_id": "x"}


def test_a_user_error_ends_a_script_with_its_text_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(SystemExit) as stopped, logged_to(log):
        raise CheckFailed("data.csv: row 3 has no caption")
    assert stopped.value.code == 3
    assert log.read_text() == "error: data.csv: row 3 has no caption\n"
