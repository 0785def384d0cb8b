from __future__ import annotations

import dataclasses
import hashlib
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovla.data.decode import ClipFrames, Request, decode_clip
from discovla.data.frames import FrameSettings, sample_shard
from discovla.data.shards import parse_shard, shard_name, shard_of
from discovla.data.store import FrameStore
from discovla.data.worker import DecodeWorker
from discovla.errors import UserError
from tests.data.conftest import World

SHARDS = 3


def make(world: World, folder: Path, n: int = SHARDS, **settings: object) -> Path:
    chosen = FrameSettings(frames=5, **settings)  # type: ignore[arg-type]
    for shard in range(1, n + 1):
        sample_shard(
            world.annotations,
            world.clips,
            world.root,
            folder / f"{shard_name(shard, n)}.arrow",
            shard=(shard, n),
            settings=chosen,
            frames_id="0123456789",
        )
    return folder


@pytest.fixture(scope="module")
def folder(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(world, tmp_path_factory.mktemp("frames"))


def direct(world: World, clip_id: str) -> np.ndarray:
    clip = world.clips.set_index("clip_id").loc[clip_id]
    row = world.annotations.drop_duplicates("clip_id").set_index("clip_id").loc[clip_id]
    times = [None if np.isnan(row[name]) else row[name] for name in ("start", "end")]
    return decode_clip(Request(str(world.root / clip["path"]), "released", 5, *times)).frames


def test_every_clip_is_there_bit_for_bit(world: World, folder: Path) -> None:
    store = FrameStore(folder, frames_id="0123456789")
    good = set(world.clips.loc[world.clips["status"] == "ok", "clip_id"])
    assert set(store.clip_ids) == good
    assert len(store) == len(good) == 10
    assert store.frames == 5
    for clip_id in good:
        assert np.array_equal(store.clip(clip_id), direct(world, clip_id))
    meta = store.meta("-t1")
    assert (meta.width, meta.height, meta.encoding, meta.reader) == (64, 48, "raw", "pyav")
    assert meta.frame_index.tolist() == [4, 8, 12, 16, 20]
    assert np.allclose(meta.timestamp, meta.frame_index / 4)


def test_failed_clips_keep_their_reason(folder: Path) -> None:
    store = FrameStore(folder)
    assert set(store.failed) == {"broken", "../../outside"}
    assert "broken.mp4: Invalid data" in store.failed["broken"]
    with pytest.raises(UserError, match=r"'broken': .*Invalid data"):
        store.clip("broken")
    with pytest.raises(UserError, match="'nobody': it is not in this frame store"):
        store.meta("nobody")


def test_shards_are_decided_by_the_id_alone(world: World, folder: Path) -> None:
    for shard in range(1, SHARDS + 1):
        store = FrameStore(folder / f"{shard}-of-{SHARDS}.arrow")
        for clip_id in [*store.clip_ids, *store.failed]:
            digest = hashlib.sha256(clip_id.encode()).hexdigest()
            assert int(digest, 16) % SHARDS + 1 == shard
    parts = [folder / f"{i}-of-{SHARDS}.arrow" for i in (1, 2)]
    assert len(FrameStore(parts)) < len(FrameStore(folder))


def test_same_input_same_bytes(world: World, folder: Path, tmp_path: Path) -> None:
    again = make(world, tmp_path)
    for path in folder.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()


def test_loader_processes_can_take_the_store(folder: Path) -> None:
    store = FrameStore(folder)
    other = pickle.loads(pickle.dumps(store))
    assert other.clip_ids == store.clip_ids
    assert np.array_equal(other.clip("clip 1"), store.clip("clip 1"))


def test_png_is_exact_and_jpeg_is_close(world: World, folder: Path, tmp_path: Path) -> None:
    raw = FrameStore(folder)
    png = FrameStore(make(world, tmp_path / "png", 1, encoding="png"))
    jpeg = FrameStore(make(world, tmp_path / "jpeg", 1, encoding="jpeg", quality=90))
    for clip_id in raw.clip_ids:
        assert np.array_equal(png.clip(clip_id), raw.clip(clip_id))
        difference = np.abs(jpeg.clip(clip_id).astype(int) - raw.clip(clip_id))
        assert difference.max() <= 4
    assert jpeg.metadata["quality"] == 90
    assert "quality" not in raw.metadata


def test_short_side(world: World, tmp_path: Path) -> None:
    store = FrameStore(make(world, tmp_path, 1, short_side=24))
    assert store.clip("clip 1").shape == (5, 24, 32, 3)
    assert store.clip("-t0").shape == (5, 32, 24, 3)


@pytest.mark.parametrize("keep", [0, 8, 1000, -1])
def test_cut_off_shard_is_named(folder: Path, tmp_path: Path, keep: int) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "2-of-3.arrow"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"2-of-3\.arrow.*Remove it and run again"):
        FrameStore(tmp_path)


def test_missing_renamed_and_foreign_shards_are_named(
    world: World, folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "a")
    (tmp_path / "a" / "2-of-3.arrow").unlink()
    with pytest.raises(UserError, match=r"1 of 3 shards are missing: 2-of-3\.arrow"):
        FrameStore(tmp_path / "a")
    shutil.copy(folder / "1-of-3.arrow", tmp_path / "a" / "2-of-3.arrow")
    with pytest.raises(UserError, match=r"2-of-3\.arrow: it is shard 1-of-3 by its header"):
        FrameStore(tmp_path / "a")
    with pytest.raises(UserError, match=r"1-of-3\.arrow: clip .*: it occurs twice"):
        FrameStore([folder / "1-of-3.arrow"] * 2)
    make(world, tmp_path / "b", sampling="uniform")
    shutil.copy(folder / "1-of-3.arrow", tmp_path / "b")
    with pytest.raises(UserError, match=r"2-of-3\.arrow: other frames than"):
        FrameStore(tmp_path / "b")
    with pytest.raises(UserError, match="frames_id is 0123456789, expected ffffffffff"):
        FrameStore(folder, frames_id="ffffffffff")
    with pytest.raises(UserError, match="no frames here"):
        FrameStore(tmp_path)
    with pytest.raises(UserError, match=r"9-of-9\.arrow: no such file"):
        FrameStore(tmp_path / "9-of-9.arrow")


def test_interrupted_shard_leaves_nothing(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = iter(range(3))
    real = DecodeWorker.read

    def interrupted(worker: DecodeWorker, request: Request) -> ClipFrames:
        if next(reads) == 2:
            raise KeyboardInterrupt
        return real(worker, request)

    monkeypatch.setattr(DecodeWorker, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(world, tmp_path, 1)
    assert list(tmp_path.iterdir()) == []


def test_clips_of_other_annotations_are_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"differ in \['clip 0'\]"):
        sample_shard(
            world.annotations,
            world.clips[1:],
            world.root,
            tmp_path / "1-of-1.arrow",
            shard=(1, 1),
            settings=FrameSettings(frames=5),
            frames_id="x",
        )


@given(st.text(st.characters(codec="utf-8")), st.integers(1, 300))
def test_shard_names_round_trip(clip_id: str, n: int) -> None:
    shard = shard_of(clip_id, n)
    assert parse_shard(shard_name(shard, n)) == parse_shard(f"{shard}/{n}") == (shard, n)


@pytest.mark.parametrize("text", ["0-of-3", "4-of-3", "3", "a/b", "1-of-3.arrow", ""])
def test_bad_shards(text: str) -> None:
    with pytest.raises(UserError, match="write 3-of-64"):
        parse_shard(text)


def test_bad_settings() -> None:
    with pytest.raises(UserError, match="allowed: auto, raw, png, jpeg"):
        FrameSettings(frames=1, encoding="webp")
    with pytest.raises(UserError, match="at least 1 pixel"):
        FrameSettings(frames=1, short_side=0)


def test_another_number_of_shards(
    world: World, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    make(world, tmp_path, 2)
    message = (
        r"several divisions, of \[2, 3\].*remove the others, for example all files \*-of-2\.arr"
    )
    with pytest.raises(UserError, match=message):
        FrameStore(tmp_path)
    (tmp_path / "1-of-2.arrow").unlink()
    assert FrameStore(tmp_path).paths == [tmp_path / f"{i}-of-3.arrow" for i in (1, 2, 3)]
    assert "only those of 3 are complete" in caplog.text
    (tmp_path / "3-of-3.arrow").unlink()
    with pytest.raises(UserError, match=r"no division is complete, of \[2, 3\]: 1 of 2 shards are"):
        FrameStore(tmp_path)


def test_bad_packets_are_counted(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = DecodeWorker.read

    def damaged(worker: DecodeWorker, request: Request) -> ClipFrames:
        return dataclasses.replace(real(worker, request), bad_packets=7)

    monkeypatch.setattr(DecodeWorker, "read", damaged)
    path = make(world, tmp_path, 1) / "1-of-1.arrow"
    assert FrameStore(path).meta("clip 1").bad_packets == 7
