"""One file from a real server on loopback that does what servers do."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from discovla.data.download.bring import download
from discovla.data.download.part import Part
from discovla.data.download.sources import (
    Published,
    Refused,
)
from discovla.data.download.transfer import CHUNK, Policy, _judge, _retry_after
from discovla.errors import UserError
from tests.data.download.material import (
    CONTENT,
    LARGEST,
    QUICK,
    SHA256,
    leftovers,
)
from tests.data.download.server import Handler, Server, file, sequence, silence, status


def get(
    server: Server, folder: Path, published: Published | None = None, policy: Policy = QUICK
) -> Path:
    target = folder / "file.bin"
    known = Published(sha256=SHA256) if published is None else published
    download(server.url("/file"), target, known, largest=LARGEST, policy=policy)
    return target


def test_a_file_arrives_whole_and_its_origin_is_written_down(
    server: Server, tmp_path: Path
) -> None:
    server.answers["/file"] = file(CONTENT)
    target = get(server, tmp_path / "new folder")
    assert target.read_bytes() == CONTENT
    record = json.loads((target.parent / "file.bin.origin.json").read_text())
    assert record.pop("fetched").startswith("20")
    assert record == {
        "url": server.url("/file"),
        "bytes": len(CONTENT),
        "sha256": SHA256,
        "checksum": "published",
    }
    assert leftovers(target.parent) == ["file.bin", "file.bin.origin.json"]


def test_an_empty_file_arrives(server: Server, tmp_path: Path) -> None:
    server.answers["/file"] = file(b"")
    published = Published(sha256=hashlib.sha256(b"").hexdigest(), size=0)
    assert get(server, tmp_path, published).read_bytes() == b""


def test_a_broken_download_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.answers["/file"] = sequence(file(CONTENT, stop=2 * CHUNK + 99), file(CONTENT))
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges() == [None, f"bytes={2 * CHUNK}-"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(stops=st.lists(st.integers(0, len(CONTENT)), max_size=6), ranges=st.booleans())
def test_wherever_it_breaks_the_bytes_are_those_of_the_file(
    server: Server, tmp_path: Path, stops: list[int], ranges: bool
) -> None:
    answers = [file(CONTENT, stop=stop, ranges=ranges) for stop in stops]
    server.answers["/file"] = sequence(*answers, file(CONTENT, ranges=ranges))
    target = get(server, tmp_path, policy=replace(QUICK, attempts=len(stops) + 2))
    assert target.read_bytes() == CONTENT
    target.unlink()


def test_the_next_run_goes_on_too_and_progress_forgives_failures(
    server: Server, tmp_path: Path
) -> None:
    server.answers["/file"] = sequence(file(CONTENT, stop=2 * CHUNK), status(503))
    with pytest.raises(Refused, match="503"):
        get(server, tmp_path)
    assert "file.bin" not in leftovers(tmp_path)
    assert Part(tmp_path / "file.bin").size == 2 * CHUNK
    server.seen.clear()
    steps = [file(CONTENT, stop=CHUNK) for _ in range(3)]  # more breaks than attempts in a row
    server.answers["/file"] = sequence(*steps, file(CONTENT))
    assert get(server, tmp_path, policy=replace(QUICK, attempts=2)).read_bytes() == CONTENT
    assert server.ranges() == [f"bytes={n * CHUNK}-" for n in (2, 3, 4, 5)]


def test_what_came_whole_before_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    server.answers["/file"] = file(CONTENT)
    part = Part(tmp_path / "file.bin")
    part.path.write_bytes(b"")
    part.begin(server.url("/file"), '"one"', len(CONTENT))
    part.path.write_bytes(CONTENT)
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.seen == []


def test_a_server_without_ranges_starts_anew_and_a_hopeless_one_is_given_up(
    server: Server, tmp_path: Path
) -> None:
    server.answers["/file"] = sequence(
        file(CONTENT, ranges=False, stop=2 * CHUNK), file(CONTENT, ranges=False)
    )
    assert get(server, tmp_path).read_bytes() == CONTENT
    (tmp_path / "file.bin").unlink()
    server.seen.clear()
    server.answers["/file"] = file(CONTENT, ranges=False, stop=2 * CHUNK)
    with pytest.raises(Refused, match="broke"):
        get(server, tmp_path)
    assert len(server.seen) == QUICK.attempts


@pytest.mark.parametrize("etag", ['"two"', None, 'W/"one"'])
def test_a_file_that_changed_meanwhile_is_fetched_from_its_beginning(
    server: Server, tmp_path: Path, etag: str | None
) -> None:
    old = bytes(len(CONTENT))
    first = '"one"' if etag == '"two"' else etag
    server.answers["/file"] = sequence(
        file(old, etag=first, stop=2 * CHUNK), file(CONTENT, etag=etag)
    )
    assert get(server, tmp_path).read_bytes() == CONTENT


def test_a_server_that_sends_another_part_is_not_believed(server: Server, tmp_path: Path) -> None:
    def wrong_part(handler: Handler) -> None:
        handler.start(206, content_length=9, content_range=f"bytes 0-8/{len(CONTENT)}")
        handler.wfile.write(CONTENT[:9])

    for answer in (wrong_part, status(416)):
        server.answers["/file"] = sequence(file(CONTENT, stop=2 * CHUNK), answer, file(CONTENT))
        get(server, tmp_path).unlink()
        assert server.ranges()[-2:] == [f"bytes={2 * CHUNK}-", None]


@pytest.mark.parametrize(
    "published",
    [
        Published(sha256="0" * 64),
        Published(git_blob="0" * 40),
        Published(sha256=SHA256, size=len(CONTENT) - 1),
    ],
)
def test_the_wrong_file_is_removed_and_named(
    server: Server, tmp_path: Path, published: Published
) -> None:
    server.answers["/file"] = file(CONTENT)
    with pytest.raises(Refused, match=r"wrong checksum|published are"):
        get(server, tmp_path, published)
    assert leftovers(tmp_path) == []


def test_a_git_name_is_a_checksum(server: Server, tmp_path: Path) -> None:
    server.answers["/file"] = file(b"hello\n")
    published = Published(git_blob="ce013625030ba8dba906f756967f9e9ca394464a")  # known from git
    assert get(server, tmp_path, published).read_bytes() == b"hello\n"


def test_without_a_checksum_the_first_download_is_the_measure(
    server: Server, tmp_path: Path
) -> None:
    server.answers["/file"] = sequence(file(CONTENT), file(CONTENT), file(CONTENT[::-1]))
    target = get(server, tmp_path, Published())
    record = json.loads((tmp_path / "file.bin.origin.json").read_text())
    assert (record["checksum"], record["sha256"]) == ("not published, recorded", SHA256)
    target.unlink()
    assert get(server, tmp_path, Published()).read_bytes() == CONTENT
    target.unlink()
    with pytest.raises(Refused, match="is not the file of 20"):
        get(server, tmp_path, Published())
    assert not target.exists()


def test_a_missing_file_is_not_asked_for_twice(server: Server, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="404"):
        get(server, tmp_path)
    assert len(server.seen) == 1
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_a_server_in_trouble_is_asked_again(server: Server, tmp_path: Path, code: int) -> None:
    server.answers["/file"] = sequence(status(code), status(code), file(CONTENT))
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert len(server.seen) == 3


def test_waits_double_with_jitter_and_obey_the_server(server: Server, tmp_path: Path) -> None:
    waits: list[float] = []
    policy = replace(QUICK, wait=1.0, longest_wait=60.0, attempts=5, sleep=waits.append)
    server.answers["/file"] = sequence(
        status(500), status(500), status(500), status(429, retry_after=30), file(CONTENT)
    )
    get(server, tmp_path, policy=policy)
    assert waits[3] >= 30
    for number, wait in enumerate(waits[:3]):
        assert 0.5 * 2**number <= wait <= 1.5 * 2**number
    assert len({wait / 2**number for number, wait in enumerate(waits[:3])}) == 3


def test_a_server_that_asks_for_an_hour_is_left_for_later(server: Server, tmp_path: Path) -> None:
    server.answers["/file"] = status(503, retry_after=3600)
    with pytest.raises(Refused, match=r"come again in 1:00:00"):
        get(server, tmp_path)
    assert len(server.seen) == 1


def test_retry_after_is_a_number_or_a_date() -> None:
    assert _retry_after("7") == 7
    assert _retry_after(None) is _retry_after("soon") is None
    assert _retry_after(format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True)) == 0
    later = _retry_after(format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True))
    assert later is not None
    assert 3500 < later <= 3600


@pytest.mark.parametrize("stop", [None, CHUNK])
def test_a_silent_server_is_asked_again(server: Server, tmp_path: Path, stop: int | None) -> None:
    quiet = silence if stop is None else file(CONTENT, stop=stop, after=silence)
    server.answers["/file"] = sequence(quiet, file(CONTENT))
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges()[1] == (None if stop is None else f"bytes={CHUNK}-")


def test_a_server_that_stays_silent_is_named_so(server: Server, tmp_path: Path) -> None:
    server.answers["/file"] = silence
    with pytest.raises(Refused, match=r"silent for 0\.3 s \(tried 3 times"):
        get(server, tmp_path)


def test_an_endless_answer_is_cut_off(server: Server, tmp_path: Path) -> None:
    def endless(handler: Handler) -> None:
        handler.start(200)
        while not handler.server.released.is_set():
            handler.wfile.write(CONTENT)

    server.answers["/file"] = endless
    with pytest.raises(Refused, match="does not end"):
        get(server, tmp_path)
    assert leftovers(tmp_path) == []


def test_too_long_a_file_is_refused_before_its_first_byte(server: Server, tmp_path: Path) -> None:
    server.answers["/file"] = lambda handler: handler.start(200, content_length=LARGEST + 1)
    with pytest.raises(Refused, match="at most"):
        get(server, tmp_path)


def test_bytes_beyond_the_announced_ones_are_not_taken(server: Server, tmp_path: Path) -> None:
    def more(handler: Handler) -> None:
        handler.start(200, content_length=len(CONTENT))
        handler.wfile.write(CONTENT + b"more")

    server.answers["/file"] = more
    assert get(server, tmp_path).read_bytes() == CONTENT


def test_a_chunked_body_that_ends_too_soon_is_asked_for_again(
    server: Server, tmp_path: Path
) -> None:
    def chunked(handler: Handler, *, whole: bool) -> None:
        handler.start(200, transfer_encoding="chunked")
        body = CONTENT if whole else CONTENT[:CHUNK]
        handler.wfile.write(b"%x\r\n%b\r\n" % (len(body), body))
        if whole:
            handler.wfile.write(b"0\r\n\r\n")

    server.answers["/file"] = sequence(
        lambda handler: chunked(handler, whole=False), lambda handler: chunked(handler, whole=True)
    )
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert len(server.seen) == 2


def test_redirections_are_followed_but_not_in_circles(server: Server, tmp_path: Path) -> None:
    server.answers["/file"] = status(302, location="/other")
    server.answers["/other"] = file(CONTENT)
    assert get(server, tmp_path).read_bytes() == CONTENT
    (tmp_path / "file.bin").unlink()
    server.answers["/other"] = status(302, location="/file")
    with pytest.raises(Refused, match="more than 10 redirections"):
        get(server, tmp_path)


def test_encryption_is_not_given_up_on_the_way(tmp_path: Path) -> None:
    response = requests.Response()
    response.status_code, response.url = 200, "http://elsewhere/file"
    with pytest.raises(Refused, match="without encryption"):
        _judge(response, "https://here/file", Part(tmp_path / "x"), QUICK)
    _judge(response, "http://here/file", Part(tmp_path / "x"), QUICK)


def test_offline_is_said_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    known = Published(sha256=SHA256)
    address = f"http://127.0.0.1:{port}/file"
    with pytest.raises(Refused, match=r"no connection .*refused.*tried 2 times"):
        download(address, tmp_path / "a", known, largest=9, policy=QUICK)

    def no_name(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    with pytest.raises(Refused, match=r"no connection .*nowhere\.invalid.*not known"):
        download("http://nowhere.invalid/f", tmp_path / "a", known, largest=9, policy=QUICK)
    assert leftovers(tmp_path) == []


def test_too_small_a_disk_is_found_before_the_first_byte(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["/file"] = file(CONTENT)
    usage = SimpleNamespace(free=len(CONTENT) - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"needs 340 kB .* has 340 kB left.* --to DIR"):
        get(server, tmp_path)
    assert leftovers(tmp_path) == []
    usage.free += 1
    assert get(server, tmp_path).exists()


def test_two_downloads_of_one_file_do_not_mix(server: Server, tmp_path: Path) -> None:
    part = Part(tmp_path / "file.bin")
    with part.locked(), pytest.raises(UserError, match="another process"):
        get(server, tmp_path)


def test_a_stop_by_the_keyboard_keeps_the_part(server: Server, tmp_path: Path) -> None:
    def stop(_: float) -> None:
        raise KeyboardInterrupt

    server.answers["/file"] = sequence(file(CONTENT, stop=2 * CHUNK), file(CONTENT))
    with pytest.raises(KeyboardInterrupt):
        get(server, tmp_path, policy=replace(QUICK, sleep=stop))
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges() == [None, f"bytes={2 * CHUNK}-"]
