"""`discovla fetch`, as a user types it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from discovla.cli import main
from discovla.data.download.part import Part
from discovla.data.download.transfer import CHUNK
from tests.data.download.material import CONTENT, SHA256
from tests.data.download.server import Server, file, sequence, silence
from tests.workflow.run import ROOT, edit, workspace


def sources(folder: Path, server: Server, **more: Any) -> None:
    """Let config/sources.yaml have one file of our server, in data/msrvtt, and `more`."""
    entry = {
        "what": "a file",
        "terms": "free",
        "dataset": "msrvtt",
        "largest": 10**7,
        "files": {"a.bin": {"sha256": SHA256}},
        "ways": [{"each": server.url("/{name}")}],
    }
    text = yaml.safe_dump({"a_file": {**entry, **more}, "by_letter": BY_LETTER})
    (folder / "config" / "sources.yaml").write_text(text)


BY_LETTER = {"what": "a book", "terms": "theirs", "dataset": "lsmdc", "manual": "Write to them."}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = workspace(tmp_path / "it")
    monkeypatch.chdir(folder)
    return folder


def test_the_list_says_what_is_here(
    server: Server, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources(folder, server)
    (folder / "data" / "msrvtt").mkdir(parents=True)
    (folder / "data" / "msrvtt" / "a.bin").write_bytes(b"mine")
    assert main(["fetch", "--list"]) == main(["fetch"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["a_file", "present", "a", "file"]
    assert "left as they are: ['a.bin']" in lines[1]
    assert lines[2].split() == ["by_letter", "by", "hand", "a", "book"]
    assert main(["fetch", "--json"]) == 0
    entry = json.loads(capsys.readouterr().out)[0]
    assert (entry["state"], entry["other"], entry["terms"]) == ("present", ["a.bin"], "free")


def test_one_failure_does_not_keep_the_others_from_coming(
    server: Server, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources(folder, server)
    server.answers["/a.bin"] = file(CONTENT)
    assert main(["fetch", "by_letter", "a_file", "--json"]) == 1
    found = capsys.readouterr()
    assert json.loads(found.out) == [
        {
            "name": "a_file",
            "state": "present",
            "folder": "data/msrvtt",
            "present": ["a.bin"],
            "other": [],
            "set": {},
        }
    ]
    assert "Write to them." in found.err
    assert (folder / "data" / "msrvtt" / "a.bin").read_bytes() == CONTENT


def test_settings_that_are_still_to_be_made_are_named(
    server: Server, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources(folder, server, weights={"vit-b32": "a.bin"})
    server.answers["/a.bin"] = file(CONTENT)
    assert main(["fetch", "a_file"]) == 0
    assert "weights: {vit-b32: data/msrvtt/a.bin}" in capsys.readouterr().out
    config = folder / "config" / "config.yaml"
    edit(config, lambda content: content.update(weights={"vit-b32": "data/msrvtt/a.bin"}))
    assert main(["fetch", "a_file"]) == 0
    assert "set in" not in capsys.readouterr().out
    assert main(["fetch", "a_file", "--to", "elsewhere"]) == 0
    assert "data: {msrvtt: elsewhere}" in capsys.readouterr().out
    assert (folder / "elsewhere" / "a.bin").exists()


def test_mistakes_are_explained(
    server: Server, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources(folder, server)
    for arguments, expected in (
        (["a_fil"], "no source a_fil; known: a_file, by_letter"),
        (["a_file", "by_letter", "--to", "x"], "name only sources that belong into one folder"),
    ):
        assert main(["fetch", *arguments]) == 1
        assert expected in capsys.readouterr().err
    sources(folder, server, ways=[{"each": "no address"}])
    assert main(["fetch", "a_file"]) == 1
    assert "sources.yaml: a_file.ways.0" in capsys.readouterr().err


def test_ctrl_c_keeps_what_came_and_the_next_run_goes_on(server: Server, folder: Path) -> None:
    sources(folder, server)
    server.answers["/a.bin"] = sequence(file(CONTENT, stop=3 * CHUNK, after=silence), file(CONTENT))
    command = [sys.executable, "-m", "discovla", "fetch", "a_file"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_PROXY": "*"}
    part = Part(folder / "data" / "msrvtt" / "a.bin")
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while part.size < 3 * CHUNK and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert part.size == 3 * CHUNK
    assert not part.target.exists()
    found = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60)
    assert found.returncode == 0, found.stderr
    assert part.target.read_bytes() == CONTENT
    assert server.ranges() == [None, f"bytes={3 * CHUNK}-"]
