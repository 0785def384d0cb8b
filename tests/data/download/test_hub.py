"""Hugging Face's library against a small hub of our own on loopback."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants

from discovla.data.download.bring import bring
from discovla.data.download.hub import fetch_model
from discovla.data.download.sources import Source
from discovla.errors import UserError
from tests.data.download.server import Server, file, status

COMMIT = "c" * 40
CAPTIONS = {"video0_a cat": ["a cat on a mat"] * 12}
SOURCE = Source(
    "captions",
    "pseudo captions",
    "free",
    "msrvtt",
    hub={
        "repository": "them/it",
        "kinds": ["model", "dataset"],
        "match": "*.json",
        "file": None,
        "save": "released_captions.json",
    },
)
MODEL = {"model": "them/llava", "revision": None}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


def publish(server: Server, kind: str, repository: str, files: dict[str, bytes]) -> None:
    """Let the hub have a repository."""
    plural, prefix = f"{kind}s", "" if kind == "model" else f"{kind}s/"
    siblings = [{"rfilename": name, "size": len(body)} for name, body in files.items()]
    info = {"id": repository, "sha": COMMIT, "siblings": siblings}
    tree = [
        {"type": "file", "path": name, "size": len(body), "oid": f"{number:040x}"}
        for number, (name, body) in enumerate(files.items())
    ]
    api = f"/api/{plural}/{repository}"
    for path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
        server.answers[path] = file(json.dumps(info).encode(), content_type="application/json")
    for revision in ("main", COMMIT):
        server.answers[f"{api}/tree/{revision}"] = file(
            json.dumps(tree).encode(), content_type="application/json"
        )
        for name, body in files.items():
            server.answers[f"/{prefix}{repository}/resolve/{revision}/{name}"] = file(
                body, etag=f'"{abs(hash(body)):040x}"', x_repo_commit=COMMIT
            )


def absent(server: Server, kind: str, repository: str) -> None:
    server.answers[f"/api/{kind}s/{repository}"] = status(404, x_error_code="RepoNotFound")


def test_the_one_file_that_fits_is_found_in_whatever_kind_of_repository(
    server: Server, tmp_path: Path
) -> None:
    absent(server, "model", "them/it")
    body = json.dumps(CAPTIONS).encode()
    publish(server, "dataset", "them/it", {"README.md": b"hello", "some name.json": body})
    state = bring(SOURCE, tmp_path / "data", endpoint=server.url(""))
    assert state.present == ("released_captions.json",)
    target = tmp_path / "data" / "released_captions.json"
    assert json.loads(target.read_text()) == CAPTIONS
    n_requests = len(server.seen)
    bring(SOURCE, tmp_path / "data", endpoint=server.url(""))
    assert len(server.seen) == n_requests


def test_several_files_that_fit_are_listed_and_one_can_be_named(
    server: Server, tmp_path: Path
) -> None:
    body = json.dumps(CAPTIONS).encode()
    publish(server, "model", "them/it", {"a.json": b"[1]", "b.json": body})
    with pytest.raises(UserError, match=r"2 files match .*'a\.json', 'b\.json'.*config/sources"):
        bring(SOURCE, tmp_path / "data", endpoint=server.url(""))

    def named(name: str) -> Source:
        return replace(SOURCE, hub={**(SOURCE.hub or {}), "file": name})

    with pytest.raises(UserError, match=r"a\.json is not the file that is expected"):
        bring(named("a.json"), tmp_path / "data", endpoint=server.url(""))
    assert bring(named("b.json"), tmp_path / "data", endpoint=server.url("")).word == "present"


def test_a_repository_that_is_gone_is_named(server: Server, tmp_path: Path) -> None:
    absent(server, "model", "them/it")
    absent(server, "dataset", "them/it")
    with pytest.raises(UserError, match="no public model or dataset of this name"):
        bring(SOURCE, tmp_path / "data", endpoint=server.url(""))


def test_without_a_hub_the_message_says_what_to_do(tmp_path: Path) -> None:
    source = replace(SOURCE, manual="The same file is elsewhere.")
    with pytest.raises(UserError) as raised:
        bring(source, tmp_path / "data", endpoint="http://127.0.0.1:9")
    text = str(raised.value)
    assert "them/it: Hugging Face does not give it" in text
    assert f"->  {tmp_path / 'data' / 'released_captions.json'}" in text
    assert "elsewhere" in text


@pytest.mark.parametrize("value", ["1", "true", "ON"])
def test_an_offline_hub_is_not_asked(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set; unset it"):
        bring(SOURCE, tmp_path / "data", endpoint=server.url(""))
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set; unset it"):
        fetch_model(MODEL, endpoint=server.url(""))
    assert server.seen == []


FILES = {"config.json": b"{}", "model.safetensors": b"tensors" * 99, "pytorch_model.bin": b"no"}


def fetch(server: Server, **options: Any) -> Path:
    return fetch_model(MODEL, endpoint=server.url(""), **options)


def test_a_model_comes_without_pickles_into_the_cache_or_a_folder(
    server: Server, tmp_path: Path
) -> None:
    publish(server, "model", "them/llava", FILES)
    for place in (fetch(server), fetch(server, folder=tmp_path / "here")):
        assert (place / "model.safetensors").read_bytes() == FILES["model.safetensors"]
        assert (place / "config.json").exists()
        assert not (place / "pytorch_model.bin").exists()
    assert tmp_path / "cache" in fetch(server).parents


def test_a_model_that_lies_in_a_folder_needs_no_hub(server: Server, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    entry = {"model": str(tmp_path), "revision": None}
    assert fetch_model(entry, endpoint=server.url("")) == tmp_path
    assert server.seen == []


def test_a_model_that_did_not_come_whole_is_not_called_fetched(
    server: Server, tmp_path: Path
) -> None:
    publish(server, "model", "them/llava", FILES)
    place = fetch(server, folder=tmp_path / "here")
    (place / "model.safetensors").write_bytes(b"half")
    publish(server, "model", "them/llava", {"config.json": b"{}"})
    plan = [SimpleNamespace(filename="model.safetensors", file_size=693, will_download=False)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "huggingface_hub.snapshot_download",
            lambda *_, dry_run=False, **__: plan if dry_run else str(place),
        )
        with pytest.raises(UserError, match=r"model\.safetensors did not come whole"):
            fetch(server)


def test_a_model_needs_room(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server, "model", "them/llava", FILES)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=694))
    with pytest.raises(UserError, match="them/llava needs 695 B"):
        fetch(server)
