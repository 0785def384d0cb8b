"""What guards a shard's bytes, and what opening one costs; see also test_frames.py."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from discovla.cli import main
from discovla.data.frame_file import SCHEMA, checksum, record_batch, shard_file
from discovla.data.store import FrameStore
from discovla.errors import UserError

FRAMES = 3
SHAPE = (FRAMES, 8, 6, 3)


def pixels(n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, SHAPE, dtype=np.uint8)


def rows(clip_id: str, frames: np.ndarray) -> list[dict[str, object]]:
    return [
        {
            **{"clip_id": clip_id, "position": n, "frame_index": 5 * n, "timestamp": n / 2},
            **{"width": frame.shape[1], "height": frame.shape[0], "encoding": "raw"},
            **{"data": frame.tobytes(), "reader": "pyav", "bad_packets": 0},
        }
        for n, frame in enumerate(frames)
    ]


def write(path: Path, clip_ids: list[str], failed: tuple[str, ...] = ()) -> Path:
    metadata = {"frames_id": "0123456789", "shard": path.stem, "frames": FRAMES, "encoding": "raw"}
    metadata |= {"clips": len(clip_ids), "clip_ids": clip_ids}
    with shard_file(path, metadata) as writer:
        for n, clip_id in enumerate(c for c in clip_ids if c not in failed):
            writer.write_batch(record_batch(rows(clip_id, pixels(n))))
        for clip_id in failed:
            row = {"clip_id": clip_id, "position": 0, "error": "moov atom not found"}
            writer.write_batch(record_batch([row]))
    return path


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return write(tmp_path / "1-of-1.arrow", ["a", "broken", "ü", "c d"], ("broken",))


def content(path: Path) -> object:
    """All that can be read of a shard."""
    store = FrameStore(path)
    clips = {c: (store.clip(c).tobytes(), str(store.meta(c))) for c in store.clip_ids}
    return clips, store.failed, store.metadata


def test_clips_keep_their_order_around_failed_ones(shard: Path) -> None:
    store = FrameStore(shard)
    assert store.clip_ids == ["a", "ü", "c d"]
    assert store.failed == {"broken": "moov atom not found"}
    for n, clip_id in enumerate(store.clip_ids):
        assert np.array_equal(store.clip(clip_id), pixels(n))


def test_a_flipped_bit_is_found_or_changes_nothing(shard: Path) -> None:
    whole, expected = shard.read_bytes(), content(shard)
    generator = random.Random(0)
    end = [8 * n + generator.randrange(8) for n in range(len(whole) - 600, len(whole))]
    found = 0
    for bit in [*generator.sample(range(8 * len(whole)), 600), *end]:
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        shard.write_bytes(damaged)
        try:
            same = content(shard) == expected
        except UserError as error:
            same = str(shard) in str(error)
            found += 1
        assert same, f"bit {bit} of {8 * len(whole)} changes the content unnoticed"
    assert found > 800  # the rest lies in what is only there for reading as a stream, and in gaps


@pytest.mark.parametrize("clip_id", ["a", "c d"])
def test_damaged_pixels_are_named_by_file_and_clip(shard: Path, clip_id: str) -> None:
    frame = pixels({"a": 0, "c d": 2}[clip_id])[1].tobytes()
    whole = shard.read_bytes()
    shard.write_bytes(whole.replace(frame, frame[:-1] + bytes([frame[-1] ^ 16])))
    store = FrameStore(shard)
    with pytest.raises(UserError) as caught:
        store.clip(clip_id)
    assert str(caught.value) == (
        f"{shard}: frames of {clip_id!r} are damaged: the checksum of frame 1 differs. "
        "Remove it and run again."
    )
    others = [other for other in store.clip_ids if other != clip_id]
    assert all(store.clip(other).shape == SHAPE for other in others)


def test_verify_reads_every_clip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "resources" / "tiny" / "frames" / "0123456789"
    path = write(folder / "1-of-1.arrow", ["a", "broken", "b"], ("broken",))
    assert main(["verify", str(folder)]) == 0
    assert "2 clips of 3, 1 without frames, 0 with bad packets" in capsys.readouterr().out
    frame = pixels(1)[2].tobytes()
    path.write_bytes(path.read_bytes().replace(frame, bytes(len(frame))))
    assert main(["verify", str(path)]) == 3
    assert "frames of 'b' are damaged" in capsys.readouterr().err


def test_checksum_covers_every_column() -> None:
    row = {**dict.fromkeys(SCHEMA.names), **rows("a", pixels(0))[1]}
    for name in SCHEMA.names:
        changed = {**row, name: b"?" if name == "data" else "?"}
        assert (checksum(changed) == checksum(row)) == (name == "checksum")


def test_opening_reads_no_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "1-of-1.arrow", [f"clip {n}" for n in range(40)], ("clip 7",))
    reads: list[int] = []
    opened = FrameStore(path)._readers[0]

    class Counting:
        schema, num_record_batches = opened.schema, opened.num_record_batches

        def get_batch(self, number: int) -> object:
            reads.append(number)
            return opened.get_batch(number)

    monkeypatch.setattr("discovla.data.store.pa.ipc.open_file", lambda source: Counting())
    store = FrameStore(path)
    assert len(store) == 39
    assert set(reads) == {39, 38}  # the failed clip, and the last good one
    reads.clear()
    assert np.array_equal(store.clip("clip 39"), pixels(38))
    assert reads == [38]


def test_bytes_are_checked_once(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = []
    monkeypatch.setattr("discovla.data.store.wrong_rows", lambda batch: checked.append(1) or "")
    store = FrameStore(shard)
    checked.clear()
    for _ in range(3):
        store.clip("a")
        store.meta("a")
    assert len(checked) == 1


def test_columns_of_another_version(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorter = SCHEMA.remove(SCHEMA.get_field_index("bad_packets"))
    monkeypatch.setattr("discovla.data.store.SCHEMA", shorter)
    with pytest.raises(UserError, match=r"not the columns of this version .*Remove it and run"):
        FrameStore(shard)
