"""Copies of the frame store on a node's own disk."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from discovla.data import scratch
from discovla.data.scratch import VARIABLE, near
from discovla.data.store import FrameStore
from discovla.errors import UserError
from tests.training import world as worlds


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> worlds.World:
    return worlds.build(tmp_path_factory.mktemp("world"))


@pytest.fixture
def frames(world: worlds.World, tmp_path: Path) -> Path:
    """A store of this test's own."""
    return Path(shutil.copytree(world.frames, tmp_path / "shared"))


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "scratch"
    place.mkdir()
    monkeypatch.setenv(VARIABLE, str(place))
    return place


def copied(source: Path) -> list[Path]:
    found = near(source)
    assert isinstance(found, list)
    return found


def test_without_the_variable_the_store_itself_is_read(
    frames: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert near(frames) == frames


def test_the_copy_is_equal_and_made_once(
    frames: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = copied(frames)
    assert all(disk in copy.parents for copy in copies)
    assert [c.read_bytes() for c in copies] == [s.read_bytes() for s in sorted(frames.iterdir())]
    assert sorted(copies[0].parent.iterdir()) == sorted(copies)  # no leases, no temporary files
    whole, copy = FrameStore(frames), FrameStore(copies)
    for clip in worlds.TRAIN:
        assert (whole.clip(clip) == copy.clip(clip)).all()
    monkeypatch.setattr(scratch.shutil, "copyfile", None)
    assert copied(frames) == copies


def test_a_changed_store_gets_another_copy(frames: Path, disk: Path) -> None:
    before = copied(frames)
    shard = next(frames.iterdir())
    content = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(content)
    assert copied(frames)[0].parent != before[0].parent


def test_half_a_copy_is_made_again(frames: Path, disk: Path) -> None:
    copies = copied(frames)
    content = copies[0].read_bytes()
    copies[0].write_bytes(content[: len(content) // 2])
    assert copied(frames)[0].read_bytes() == content


def test_a_copy_that_is_not_what_was_written_is_not_used(
    frames: Path, disk: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flip(source: Path, target: Path) -> None:
        content = bytearray(Path(source).read_bytes())
        content[100] ^= 1
        Path(target).write_bytes(content)

    monkeypatch.setattr(scratch.shutil, "copyfile", flip)
    assert near(frames) == frames
    assert "is not what was written" in caplog.text
    assert not [path for path in disk.rglob("*") if path.is_file()]


def test_without_room_the_shared_store_is_read(
    frames: Path, disk: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda _: usage(1000, 990, 10))
    assert near(frames) == frames
    assert "GB free, the frames need" in caplog.text
    assert not list(disk.iterdir())


def test_a_folder_that_is_new_on_this_node_is_made(
    frames: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(disk / "me"))
    copies = near(frames)
    assert isinstance(copies, list)
    assert all(copy.is_relative_to(disk / "me") for copy in copies)


def test_a_scratch_that_is_not_there_costs_only_speed(
    frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file" / "below"))
    assert near(frames) == frames
    assert "no copy of the frames below" in caplog.text


def test_an_incomplete_store_is_refused_as_ever(frames: Path, disk: Path) -> None:
    next(frames.iterdir()).unlink()
    with pytest.raises(UserError, match="shards are missing"):
        near(frames)


COUNTING = """
import sys
from pathlib import Path
from discovla.data import scratch

plain = scratch.shutil.copyfile

def counting(*arguments):
    with Path(sys.argv[2]).open("a") as handle:
        handle.write("x")
    plain(*arguments)

scratch.shutil.copyfile = counting
assert isinstance(scratch.near(sys.argv[1]), list)
"""


def test_processes_of_a_node_share_one_copy(frames: Path, disk: Path, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    command = [sys.executable, "-c", COUNTING, str(frames), str(counter)]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    assert counter.read_text() == "x" * worlds.SHARDS
