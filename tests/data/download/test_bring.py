"""Sources: mirrors in their order, nothing twice, nothing replaced, clear words at the end."""

from __future__ import annotations

import errno
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from discovla.data.download.bring import bring
from discovla.data.download.part import Part
from discovla.data.download.sources import (
    Published,
)
from discovla.data.download.transfer import CHUNK
from discovla.errors import UserError
from tests.data.download.material import (
    CONTENT,
    QUICK,
    SHA256,
    leftovers,
    one,
)
from tests.data.download.server import Server, file


def test_mirrors_are_tried_in_order_and_nothing_is_fetched_twice(
    server: Server, tmp_path: Path
) -> None:
    server.answers |= {"/bad/a.bin": file(b"other"), "/a.bin": file(CONTENT)}
    source = one(server, "a.bin", Published(sha256=SHA256), "/none", "/bad")
    assert bring(source, tmp_path, policy=QUICK).present == ("a.bin",)
    assert [path for path, _ in server.seen] == ["/none/a.bin", "/bad/a.bin", "/a.bin"]
    bring(source, tmp_path, policy=QUICK)
    assert len(server.seen) == 3


def test_when_every_way_fails_the_message_says_what_to_do_by_hand(
    server: Server, tmp_path: Path
) -> None:
    source = replace(one(server, "a.bin", Published(sha256=SHA256), "/none"), manual="Ask us.")
    with pytest.raises(UserError) as raised:
        bring(source, tmp_path, policy=QUICK)
    text = str(raised.value)
    for path in ("/none/a.bin", "/a.bin"):
        assert f"{server.url(path)}: the server answers 404" in text
        assert f"{server.url(path)}  ->  {tmp_path / 'a.bin'}" in text
    assert "Ask us." in text
    assert "error: " not in text  # the workflow shows what follows the last of these


def test_a_file_of_the_user_is_never_replaced(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"mine")
    state = bring(one(server, "a.bin", Published(sha256=SHA256)), tmp_path, policy=QUICK)
    assert (state.word, state.other) == ("present", ("a.bin",))
    assert (tmp_path / "a.bin").read_bytes() == b"mine"
    assert server.seen == []


def test_json_without_a_checksum_must_at_least_be_json(server: Server, tmp_path: Path) -> None:
    server.answers["/a.json"] = file(b"<html>Log in to this network</html>")
    with pytest.raises(UserError, match=r"a\.json is not valid JSON"):
        bring(one(server, "a.json", Published()), tmp_path, policy=QUICK)
    assert leftovers(tmp_path) == []


def test_a_disk_that_fills_up_keeps_what_came(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["/a.json"] = file(CONTENT)
    source = one(server, "a.json", Published(sha256=SHA256))
    tell = Part.writing

    def full(self: Part, start: int) -> object:
        return _Full(tell(self, start))

    with monkeypatch.context() as patch:
        patch.setattr(Part, "writing", full)
        with pytest.raises(UserError, match=r"disk is full .* run the same command again"):
            bring(source, tmp_path, policy=QUICK)
    assert Part(tmp_path / "a.json").size == CHUNK
    bring(source, tmp_path, policy=QUICK)
    assert server.ranges() == [None, f"bytes={CHUNK}-"]


class _Full:
    """A file opened for writing that takes one chunk and no more."""

    def __init__(self, opened: object) -> None:
        self.opened = opened

    def __enter__(self) -> _Full:
        self.handle = self.opened.__enter__()  # type: ignore[attr-defined]
        return self

    def __exit__(self, *error: object) -> None:
        self.opened.__exit__(*error)  # type: ignore[attr-defined]

    def write(self, chunk: bytes) -> None:
        if self.handle.tell():
            raise OSError(errno.ENOSPC, "No space left on device")
        self.handle.write(chunk)


def test_downloads_may_run_side_by_side(server: Server, tmp_path: Path) -> None:
    server.answers |= {f"/{n}.bin": file(CONTENT) for n in range(4)}
    errors: list[Exception] = []

    def fetch(number: int) -> None:
        try:
            bring(one(server, f"{number}.bin", Published(sha256=SHA256)), tmp_path, policy=QUICK)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=fetch, args=(n,)) for n in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert errors == []
    assert all((tmp_path / f"{n}.bin").read_bytes() == CONTENT for n in range(4))
