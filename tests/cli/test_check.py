from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from discovla.cli import main
from discovla.storage.files import read_json
from discovla.verify import verify
from tests.data.checks.world import clip, dataset
from tests.data.videos import write_video
from tests.workflow.run import edit, workspace

NO_HEAVY_LIBRARY = (
    "import sys; from discovla.cli import main; code = main(sys.argv[1:]); "
    "bad = {'torch', 'transformers', 'open_clip'} & set(sys.modules); assert not bad, bad; "
    "sys.exit(code)"
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with config/ whose demo has two clips, one of them without a video."""
    folder = workspace(tmp_path / "place")
    counts = {split: {"clips": 1, "captions": 1} for split in ("train", "test")}
    edit(
        folder / "config" / "datasets" / "demo.yaml",
        lambda content: content.update(expected=counts, root="world"),
    )
    dataset(folder / "world", clip("a"), clip("b", "test"))
    write_video(folder / "world" / "a.mp4")
    monkeypatch.chdir(folder)
    return folder


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", NO_HEAVY_LIBRARY, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_without_data(tmp_path: Path, root: Path) -> None:
    """No data: one message, exit 3, nothing on stdout but the report, torch never imported."""
    arguments = ["check", "msrvtt", "--root", str(tmp_path / "no"), "--json"]
    done = run(*arguments, "--output", str(tmp_path / "check.json"), folder=root)
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["files"]["missing"][0] == "MSRVTT_train.9k.csv"
    assert "10,000 videos" in done.stderr
    assert not (tmp_path / "check.json").exists()


def test_a_page_for_people_and_one_message(place: Path) -> None:
    done = run("check", "demo", folder=place)
    assert done.returncode == 3, done.stderr
    assert "1 clips have no video: b" in done.stdout
    assert "no test clip is left of 1" in done.stdout
    assert done.stderr.startswith("error: demo: data incomplete. Looked in world")
    assert done.stderr.count("\n") == 1


def test_what_is_allowed_is_written_down(place: Path) -> None:
    options = ["--allow-missing", "--output", "out/check.json"]
    assert main(["check", "demo", "--full", "--jobs", "2", *options]) == 0
    report = read_json("out/check.json")
    assert (report["allow_missing"], report["excluded"]) == (True, ["b"])
    assert report["mode"] == "full"
    assert verify("out/check.json").startswith("check of demo")


def test_the_script_of_the_workflow_writes_the_same(place: Path) -> None:
    from discovla.config import load_yaml

    write_video(place / "world" / "b.mp4")
    assert main(["check", "demo", "--output", "check.json"]) == 0
    fake = SimpleNamespace(
        config=load_yaml("config/config.yaml"),
        wildcards=SimpleNamespace(dataset="demo"),
        output=["script.json"],
        log=["log"],
    )
    script = Path(__file__).resolve().parents[2] / "workflow" / "scripts" / "check_data.py"
    runpy.run_path(str(script), init_globals={"snakemake": fake})
    assert Path("script.json").read_bytes() == Path("check.json").read_bytes()
    assert "all that was looked for is there" in Path("log").read_text()


def test_no_jobs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "demo", "--jobs", "0"]) == 1
    assert "--jobs is 0; it must be at least 1" in capsys.readouterr().err
