from __future__ import annotations

import http.client
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from discovla.cli import main
from discovla.search import web
from discovla.search.build import build, remove
from discovla.search.model import Encoder, Source
from discovla.search.query import search, text_vector
from discovla.search.store import Index
from tests.search.conftest import NAMES, OPTIONS
from tests.search.server import serving

Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture(scope="module")
def port(index: Index) -> Iterator[int]:
    with serving(index.folder) as found:
        yield found


def get(port: int, path: str, **headers: str) -> Answer:
    """One answer; the path is sent as it stands."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, {k.lower(): v for k, v in answer.getheaders()}, body


def test_hits_are_those_of_the_command(port: int, index: Index, encoder: Encoder) -> None:
    status, _, body = get(port, "/search.json?q=a%20red%20square&top=3")
    hits = search(index, text_vector(encoder, "a red square"), 3)
    assert status == 200
    assert [hit["id"] for hit in json.loads(body)["hits"]] == [hit.entry for hit in hits]
    _, _, body = get(port, f"/search.json?like={hits[1].entry}&top=1")
    assert json.loads(body)["hits"][0]["key"] == hits[1].key
    _, _, page = get(port, "/?q=a%20red%20square&by=moment")
    assert page.decode().count("<article") == len(NAMES)


def test_files_are_served_in_ranges_by_id(port: int, index: Index) -> None:
    rows = index.videos.rows(["path", "entry"]).to_pylist()
    for row in rows:
        content = (index.root / row["path"]).read_bytes()
        status, headers, body = get(port, f"/video/{row['entry']}")
        assert (status, body, headers["content-type"]) == (200, content, "video/mp4")
        assert headers["accept-ranges"] == "bytes"
        status, headers, body = get(port, f"/video/{row['entry']}", Range="bytes=100-299")
        assert (status, body) == (206, content[100:300])
        assert headers["content-range"] == f"bytes 100-299/{len(content)}"
        status, _, body = get(port, f"/video/{row['entry']}", Range="bytes=-50")
        assert (status, body) == (206, content[-50:])
        assert get(port, f"/video/{row['entry']}", Range=f"bytes={len(content)}-")[0] == 416
        status, headers, body = get(port, f"/thumbnail/{row['entry']}/0")
        assert (status, body[:2], headers["content-type"]) == (200, b"\xff\xd8", "image/jpeg")
        _, headers, _ = get(port, f"/video/{row['entry']}?download")
        assert headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize(
    "path",
    [
        "/video/../../etc/passwd",
        "/video/..%2f..%2fetc%2fpasswd",
        "/video/plain.mp4",
        "/video/",
        "/video/" + "0" * 16,
        "/video/x'%20OR%20'1'='1",
        "/thumbnail/" + "0" * 16 + "/0",
        "/thumbnail/x/-1",
        "/thumbnail/x/99999999999999999999999",
        "/static/../page.html",
        "/static/..%2fpage.html",
        "/static/%2e%2e/web.py",
        "//etc/passwd",
        "/mine.csv",
    ],
)
def test_nothing_else_is_served(port: int, path: str) -> None:
    status, _, body = get(port, path)
    assert status == 404
    assert b"root:" not in body
    assert b"<!doctype" not in body


def test_other_hosts_names_and_foreign_content_are_refused(port: int) -> None:
    assert get(port, "/", Host="evil.example")[0] == 400
    for path in ("/", "/static/page.js", "/video/x", "/search.json?q=x"):
        _, headers, _ = get(port, path)
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"


def test_texts_are_escaped(port: int) -> None:
    hostile = "\"><script>alert(1)</script><img src=x onerror='alert(2)'>"
    _, _, body = get(port, f"/?q={quote(hostile)}&by=%22%3E&like=&top=x")
    page = body.decode()
    assert not re.search(r"<(script|img|b)(>| src=x)", page.replace('<script src="/static', ""))
    assert "&lt;script&gt;alert(1)" in page
    assert "&lt;b&gt;bold&lt;img src=x" in page  # a file's name
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; a &#34;shape&#34;" in page
    assert not re.search(r"https?://", page)


def test_questions_without_an_answer(port: int) -> None:
    assert get(port, "/search.json")[0] == 400
    assert b"no longer in the index" in get(port, "/?like=nothing")[2]
    assert get(port, "/?q=%20%20")[0] == 200
    assert get(port, "/?q=" + "x" * 5000)[0] == 200
    assert get(port, "/?q=x&top=999999999999999999999")[0] == 200


def test_the_page_shows_the_index_as_it_is_now(
    tmp_path: Path, model: Source, fill: Callable[[Path], Path]
) -> None:
    videos = fill(tmp_path / "videos")
    build(videos, tmp_path / "index", model, window=1.0, options=OPTIONS)
    with serving(tmp_path / "index") as port:
        _, _, body = get(port, "/search.json?q=x")
        hits = {hit["key"]: hit["id"] for hit in json.loads(body)["hits"]}
        assert set(hits) == set(NAMES)
        remove(tmp_path / "index", ["plain.mp4"])
        (videos / NAMES[1]).unlink()
        _, _, body = get(port, "/search.json?q=x")
        assert {hit["key"] for hit in json.loads(body)["hits"]} == set(NAMES) - {"plain.mp4"}
        assert get(port, f"/video/{hits['plain.mp4']}")[0] == 404
        assert get(port, f"/video/{hits[NAMES[1]]}")[0] == 404  # gone from the disk
        shutil.copy(videos / NAMES[4], videos / "new.mp4")
        options = OPTIONS
        build(videos, tmp_path / "index", model, window=3.0, rebuild=True, options=options)
        _, _, body = get(port, "/search.json?q=x")
        assert "new.mp4" in {hit["key"] for hit in json.loads(body)["hits"]}


def test_the_model_of_a_rebuilt_index_goes_to_the_same_device(
    tmp_path: Path,
    model: Source,
    fill: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    devices = []

    def noted(folder: Path, device: str = "auto") -> Encoder:
        devices.append(device)
        return Encoder(folder, "cpu")

    monkeypatch.setattr(web, "Encoder", noted)
    videos = fill(tmp_path / "videos")
    build(videos, tmp_path / "index", model, window=1.0, options=OPTIONS)
    searcher = web.Searcher(tmp_path / "index", "cuda:3")
    first = searcher.now()
    assert searcher.now()[1] is first[1]
    other = replace(model, config={**model.config, "run_id": "another"})
    build(videos, tmp_path / "index", other, window=1.0, rebuild=True, options=OPTIONS)
    index, encoder = searcher.now()
    assert index.settings["model"]["run_id"] == encoder.label == "another"
    assert devices == ["cuda:3", "cuda:3"]


def test_an_address_in_use_is_told(
    port: int, index: Index, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(index.folder), "--port", str(port), "--device", "cpu"]) == 1
    assert "cannot be listened on" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["serve INDEX", "search INDEX text", "index . --output INDEX"])
def test_without_the_extra_the_commands_say_what_to_install(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "lance", None)
    assert main(command.split()) == 1
    assert "pip install 'discovla[search]'" in capsys.readouterr().err
