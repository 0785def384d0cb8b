"""Reading the frame store: random access to the frames of a clip, straight from the page cache."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discovla.data.encoding import decode
from discovla.data.frame_file import SCHEMA, check_footer, wrong_rows
from discovla.data.shards import complete_shards
from discovla.data.tables import parse_metadata, readable
from discovla.errors import UserError
from discovla.storage.place import check_place

WHAT = "a shard of frames"
AGAIN = "Remove it and run again."
_OWN = ("schema", "footer", "shard", "clips", "clip_ids", "estimate")
"""Metadata in which the shards of one store may differ."""


@dataclass(frozen=True)
class FrameMeta:
    """What is known of the frames of one clip."""

    frame_index: NDArray[np.int64]
    timestamp: NDArray[np.float64]
    width: int
    height: int
    encoding: str
    reader: str
    bad_packets: int
    """Packets of the file that could not be decoded; the frames are those around them."""


class FrameStore:
    """The frames of many clips.

    A whole folder must hold all of its shards; single files may be any of them. Opening reads the
    header of each file; the frames of a clip are checked against their checksums when they are
    first read. Instances can be pickled: loader processes open the files anew.

    Args:
        source: a folder of shards, one shard, or several.
        frames_id: if given, every shard must be of this identity.

    Raises:
        UserError: a shard is absent, cut off, damaged, or belongs to other frames; it names the
            file.
    """

    def __init__(
        self, source: str | Path | Sequence[str | Path], frames_id: str | None = None
    ) -> None:
        self.paths = _shard_files(source)
        self._open(frames_id)

    def _open(self, frames_id: str | None) -> None:
        self._readers: list[Any] = []
        self._starts: list[int] = []
        self._place: dict[str, int] = {}
        self.failed: dict[str, str] = {}
        """Clips without frames, and why."""
        self.metadata: dict[str, Any] = {}
        """What all shards say of themselves: frames_id, frames, sampling, encoding, …"""
        total = 0
        for path in self.paths:
            with readable(path, WHAT):
                check_footer(path)
                reader = pa.ipc.open_file(pa.memory_map(str(path)))
                metadata = parse_metadata(reader.schema, path, WHAT)
            self._agree(path, reader, metadata, frames_id)
            self._list_clips(_Shard(path, reader, metadata), total)
            self._readers.append(reader)
            self._starts.append(total)
            total += reader.num_record_batches
        self._checked = bytearray(total)

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths, "frames_id": self.frames_id}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.paths = state["paths"]
        self._open(state["frames_id"])

    @property
    def frames_id(self) -> str:
        """Identity of these frames."""
        return str(self.metadata["frames_id"])

    @property
    def storage(self) -> str:
        """How frames are kept, such as `raw`, or `jpeg 95, short side 256`."""
        found = self.metadata
        parts = [" ".join(str(found[k]) for k in ("encoding", "quality") if found.get(k))]
        if found["short_side"]:
            parts.append(f"short side {found['short_side']}")
        return ", ".join(parts)

    @property
    def frames(self) -> int:
        """F: frames of every clip."""
        return int(self.metadata["frames"])

    @property
    def clip_ids(self) -> list[str]:
        """Clips that have frames."""
        return list(self._place)

    def __contains__(self, clip_id: str) -> bool:
        return clip_id in self._place

    def __len__(self) -> int:
        return len(self._place)

    def clip(self, clip_id: str) -> NDArray[np.uint8]:
        """Frames of a clip, uint8 (F, H, W, 3); raw frames are a read-only view, not a copy.

        Raises:
            UserError: the clip has no frames here, or its data are damaged.
        """
        path, batch = self._batch(clip_id)
        data = batch["data"]
        if batch["encoding"][0].as_py() != "raw":
            return np.stack([_picture(value.as_py(), path, clip_id) for value in data])
        width, height = batch["width"][0].as_py(), batch["height"][0].as_py()
        offsets = np.frombuffer(data.buffers()[1], np.int64, batch.num_rows + 1, 8 * data.offset)
        start, stop = int(offsets[0]), int(offsets[-1])
        flat = np.frombuffer(data.buffers()[2], np.uint8)[start:stop]
        return flat.reshape(batch.num_rows, height, width, 3)

    def meta(self, clip_id: str) -> FrameMeta:
        """Numbers, times and size of a clip's frames."""
        _, batch = self._batch(clip_id)
        return FrameMeta(
            frame_index=batch["frame_index"].to_numpy(),
            timestamp=batch["timestamp"].to_numpy(),
            width=batch["width"][0].as_py(),
            height=batch["height"][0].as_py(),
            encoding=batch["encoding"][0].as_py(),
            reader=batch["reader"][0].as_py(),
            bad_packets=batch["bad_packets"][0].as_py(),
        )

    def _batch(self, clip_id: str) -> tuple[Path, Any]:
        if clip_id not in self._place:
            reason = self.failed.get(clip_id, "it is not in this frame store")
            raise UserError(f"no frames of clip {clip_id!r}: {reason}")
        place = self._place[clip_id]
        file = bisect_right(self._starts, place) - 1
        path, reader = self.paths[file], self._readers[file]
        with readable(path, WHAT):
            batch = reader.get_batch(place - self._starts[file])
        if not self._checked[place]:
            wrong = _wrong(batch, clip_id, self.frames)
            if wrong:
                raise UserError(f"{path}: frames of {clip_id!r} are damaged: {wrong}. {AGAIN}")
            self._checked[place] = 1
        return path, batch

    def _agree(
        self, path: Path, reader: Any, metadata: dict[str, Any], frames_id: str | None
    ) -> None:
        """The shard is of this format and of the same frames as the shards before it."""
        if reader.schema.names != SCHEMA.names:
            raise UserError(f"{path}: not the columns of this version ({SCHEMA.names}). {AGAIN}")
        if frames_id is not None and metadata["frames_id"] != frames_id:
            raise UserError(
                f"{path}: frames_id is {metadata['frames_id']}, expected {frames_id}. {AGAIN}"
            )
        check_place(path, metadata)
        if metadata["shard"] != path.stem:
            raise UserError(f"{path}: it is shard {metadata['shard']} by its header. {AGAIN}")
        common = {k: v for k, v in metadata.items() if k not in _OWN}
        self.metadata = self.metadata or common
        if common != self.metadata:
            raise UserError(
                f"{path}: other frames than {self.paths[0]}: {common}, not {self.metadata}"
            )

    def _list_clips(self, shard: _Shard, start: int) -> None:
        """Note where each clip of a shard lies, and that the shard is whole."""
        with readable(shard.path, WHAT):
            good, failed = shard.clips()
        for clip_id in [*good, *failed]:
            if clip_id in self._place or clip_id in self.failed:
                raise UserError(f"{shard.path}: clip {clip_id!r}: it occurs twice. {AGAIN}")
        self._place.update((clip_id, start + place) for clip_id, place in good.items())
        self.failed.update(failed)


@dataclass(frozen=True)
class _Shard:
    """One open file."""

    path: Path
    reader: Any
    metadata: dict[str, Any]

    def clips(self) -> tuple[dict[str, int], dict[str, str]]:
        """Number of each good clip's batch, and the errors of the failed ones."""
        count = self.reader.num_record_batches
        if count != self.metadata["clips"]:
            raise UserError(
                f"{self.path}: {count} clips, its header says {self.metadata['clips']}. {AGAIN}"
            )
        # Failed clips stand at the end; the header names all.
        first_failed = count
        while first_failed and self.reader.get_batch(first_failed - 1)["data"].null_count:
            first_failed -= 1
        failed = self._errors(range(first_failed, count))
        good = [clip_id for clip_id in self.metadata["clip_ids"] if clip_id not in failed]
        if len(good) != first_failed:
            raise UserError(f"{self.path}: its header names other clips than it holds. {AGAIN}")
        return {clip_id: place for place, clip_id in enumerate(good)}, failed

    def _errors(self, places: Sequence[int]) -> dict[str, str]:
        """Clip id → error of failed clips."""
        errors = {}
        for place in places:
            batch = self.reader.get_batch(place)
            wrong = wrong_rows(batch)
            if wrong:
                raise UserError(
                    f"{self.path}: the rows of clip {place} are damaged: {wrong}. {AGAIN}"
                )
            errors[batch["clip_id"][0].as_py()] = batch["error"][0].as_py()
        return errors


def _wrong(batch: Any, clip_id: str, frames: int) -> str:
    """What is wrong with the rows of a clip that has frames; "" if nothing."""
    wrong = wrong_rows(batch)
    if wrong:
        return wrong
    if set(batch["clip_id"].to_pylist()) != {clip_id}:
        return f"in their place are those of {batch['clip_id'][0].as_py()!r}"
    if batch["position"].to_pylist() != list(range(frames)):
        return f"{batch.num_rows} frames, expected {frames}"
    return ""


def _picture(data: bytes, path: Path, clip_id: str) -> NDArray[np.uint8]:
    try:
        return decode(data)
    except (OSError, SyntaxError) as error:
        raise UserError(
            f"{path}: a frame of {clip_id!r} cannot be decoded ({error}). {AGAIN}"
        ) from None


def _shard_files(source: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files to open; for a folder, all shards or an error that names the absent ones."""
    if not isinstance(source, str | Path):
        return [Path(path) for path in source]
    source = Path(source)
    if not source.is_dir():
        return [source]
    return complete_shards(source, ".arrow", "frames", rule="sample_frames")
