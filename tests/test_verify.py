"""`discovla verify`: sound files are described, others named with what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from discovla.cli import main
from discovla.errors import UserError
from discovla.storage.files import write_json
from discovla.verify import METRIC_KEYS, verify

METRICS = dict.fromkeys(METRIC_KEYS, 1) | {"run_id": "lora-x", "seed": 0}


def test_sound_metrics_are_described(tmp_path: Path) -> None:
    path = tmp_path / "metrics.none.json"
    write_json(path, METRICS)
    assert "lora-x" in verify(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.none.json", b'{"run_id": 1}', "no seed"),
        ("metrics.dsl.json", b'{"run_id": ', "not valid JSON"),
        ("annotations.parquet", b"PAR1 and then nothing", "annotations.parquet"),
        ("clips.parquet", b"", "clips.parquet"),
        ("features.test.safetensors", b"\x00" * 30, "features.test.safetensors"),
        ("table1.csv", b"a,b\n1,2\n", "no columns"),
        ("cost.json", b'{"run_id": "x"}', "not a training's cost: no step"),
        ("seed0/selection.csv", b"checkpoint\nlast\n", "not a choice of checkpoints: no columns"),
        ("epochs/last.test.safetensors", b"\x00" * 30, "last.test.safetensors"),
        ("results/a/grid/lora.csv", b"method\nlora\n", "not a grid: no columns"),
        ("curve.csv", b"step,lr,loss\n1,0,0\n,0,0\n", "steps are not 1 to 2"),
        ("features.test.parquet", b"PAR1", "features.test.parquet"),
        ("state/state.safetensors", b"\x00" * 30, "Remove the folder .*state to start"),
        ("notes.txt", b"x", "not an artefact of this workflow"),
    ],
)
def test_damage_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        verify(path)


def test_command_reports_every_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, absent = tmp_path / "metrics.none.json", tmp_path / "check.json"
    write_json(good, METRICS)
    assert main(["verify", "--json", str(good), str(absent)]) == 3
    found = json.loads(capsys.readouterr().out)
    assert found[str(good)]["sound"] is True
    assert "no such file" in found[str(absent)]["what"]


def test_of_a_folder_all_that_the_workflow_made_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    below = tmp_path / "results" / "a" / "runs" / "lora-x" / "seed0"
    below.mkdir(parents=True)
    write_json(below / "metrics.none.json", METRICS | {"post": {"name": "none"}})
    (below / "metrics.dsl.json").write_text("{")
    (below / "gallery.html").touch()
    (below / ".metrics.none.tmp-x-1-1.ab.json").write_text("half")
    assert main(["verify", str(tmp_path)]) == 3
    said = capsys.readouterr()
    assert said.out.startswith(f"{below / 'metrics.none.json'}: metrics of lora-x")
    assert said.out.count("\n") == 1
    assert said.err.startswith(f"{below / 'metrics.dsl.json'}: not valid JSON")
    assert said.err.count("\n") == 1
    (tmp_path / "empty").mkdir()
    assert main(["verify", str(tmp_path / "empty")]) == 1
    assert "no artefact of this workflow below it" in capsys.readouterr().err
