"""Archives: only what is wanted, nowhere else, never half."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from discovla.data.download.bring import bring, look
from discovla.data.download.sources import (
    Archive,
    Published,
    Refused,
)
from discovla.data.download.unpack import unpack
from discovla.errors import UserError
from tests.data.download.material import (
    CONTENT,
    QUICK,
    SHA256,
    VIDEOS,
    leftovers,
    one,
    packed,
    zipped,
)
from tests.data.download.server import Server, file


def test_an_archive_is_unpacked_checked_and_removed(server: Server, tmp_path: Path) -> None:
    extra = {"MSRVTT/annotation/MSR_VTT.json": b"{}", "__MACOSX/._video0.mp4": b"x"}
    server.answers["/V.zip"] = file(zipped({**VIDEOS, **extra}))
    assert look(packed(server), tmp_path).word == "absent"
    state = bring(packed(server), tmp_path, policy=QUICK)
    assert (state.word, state.present) == ("present", ("4 files",))
    assert leftovers(tmp_path) == ["V.zip.origin.json", "videos"]
    for name, content in VIDEOS.items():
        assert (tmp_path / "videos" / Path(name).name).read_bytes() == content
    bring(packed(server), tmp_path, policy=QUICK)
    assert len(server.seen) == 1


def test_an_archive_brought_by_hand_is_used_and_stays(server: Server, tmp_path: Path) -> None:
    (tmp_path / "V.zip").write_bytes(zipped(VIDEOS))
    assert bring(packed(server), tmp_path, policy=QUICK).word == "present"
    assert server.seen == []
    assert (tmp_path / "V.zip").exists()


def test_videos_unpacked_elsewhere_below_the_folder_count(server: Server, tmp_path: Path) -> None:
    for name, content in VIDEOS.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert bring(packed(server), tmp_path, policy=QUICK).word == "present"
    assert server.seen == []


def test_an_interrupted_unpacking_goes_on(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["/V.zip"] = file(zipped(VIDEOS))
    (tmp_path / "videos").mkdir()
    kept = tmp_path / "videos" / "video1.mp4"
    kept.write_bytes(VIDEOS["MSRVTT/videos/all/video1.mp4"])
    before = kept.stat().st_mtime_ns
    copy, calls = shutil.copyfileobj, []

    def stop(*arguments: object) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        copy(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", stop)
        with pytest.raises(KeyboardInterrupt):
            bring(packed(server), tmp_path, policy=QUICK)
    assert leftovers(tmp_path / "videos") == ["video0.mp4", "video1.mp4"]
    assert bring(packed(server), tmp_path, policy=QUICK).word == "present"
    assert kept.stat().st_mtime_ns == before
    assert not (tmp_path / "V.zip").exists()
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "evil", ["../video9.mp4", "/etc/video9.mp4", "a/../../b", "..\\video9.mp4"]
)
def test_a_member_that_leaves_the_folder_ends_the_unpacking(
    server: Server, tmp_path: Path, evil: str
) -> None:
    inside = tmp_path / "inside"
    server.answers["/V.zip"] = file(zipped({**VIDEOS, evil: b"x"}))
    with pytest.raises(UserError, match="leaves its folder"):
        bring(packed(server), inside, policy=QUICK)
    assert not (inside / "videos").exists()
    assert leftovers(tmp_path) == ["inside"]


def test_a_link_is_never_unpacked(tmp_path: Path, server: Server) -> None:
    link = "MSRVTT/videos/all/video3.mp4"
    archive = tmp_path / "V.zip"
    archive.write_bytes(zipped({**VIDEOS, link: b"/etc/passwd"}, links=(link,)))
    with pytest.raises(Refused, match="lacks 4 files, only 3"):
        unpack(archive, packed(server), tmp_path)
    assert leftovers(tmp_path) == ["V.zip"]


def test_two_different_files_of_one_name_are_refused(tmp_path: Path, server: Server) -> None:
    same = {"copy/video0.mp4": VIDEOS["MSRVTT/videos/all/video0.mp4"]}
    archive = tmp_path / "V.zip"
    archive.write_bytes(zipped({**VIDEOS, **same}))
    assert len(unpack(archive, packed(server), tmp_path)) == 4
    archive.write_bytes(zipped({**VIDEOS, "copy/video0.mp4": b"other"}))
    with pytest.raises(Refused, match=r"two files video0\.mp4"):
        unpack(archive, packed(server), tmp_path)


def test_a_damaged_zip_leaves_nothing_behind(server: Server, tmp_path: Path) -> None:
    whole = zipped({"a.bin": CONTENT})
    for bad in (whole[:-30], whole[:900] + b"\0" * 9 + whole[909:], b"no zip"):
        server.answers["/V.zip"] = file(bad)
        with pytest.raises(UserError, match=r"V\.zip is (no sound zip|damaged)"):
            bring(packed(server), tmp_path, policy=QUICK)
        assert leftovers(tmp_path) == []


def test_a_member_with_a_wrong_checksum_comes_from_the_next_mirror(
    server: Server, tmp_path: Path
) -> None:
    server.answers["/V.zip"] = file(zipped({"x/a.bin": b"other"}))
    server.answers["/a.bin"] = file(CONTENT)
    archive = Archive(server.url("/V.zip"), Published())
    plain = one(server, "a.bin", Published(sha256=SHA256))
    bring(replace(plain, ways=(archive, *plain.ways)), tmp_path, policy=QUICK)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_unpacking_needs_room_for_all_its_files(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "V.zip").write_bytes(zipped(VIDEOS))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3999))
    with pytest.raises(UserError, match=r"V\.zip \(zip\) needs 4 kB"):
        bring(packed(server), tmp_path, policy=QUICK)
