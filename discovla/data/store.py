"""Reading the frame store: random access to the frames of a clip, straight from the page cache."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from discovla.data.shards import complete_shards, parse_shard, shard_of
from discovla.data.tables import parse_metadata, readable
from discovla.errors import UserError

WHAT = "a shard of frames"


@dataclass(frozen=True)
class FrameMeta:
    """What is known of the frames of one clip."""

    frame_index: NDArray[np.int64]
    timestamp: NDArray[np.float64]
    width: int
    height: int
    encoding: str
    reader: str


class FrameStore:
    """The frames of many clips.

    A whole folder must hold all of its shards; single files may be any of them. Instances can be
    pickled: loader processes open the files anew.

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
        self._place: dict[str, tuple[int, int]] = {}
        self.failed: dict[str, str] = {}
        """Clips without frames, and why."""
        self.metadata: dict[str, Any] = {}
        """What all shards say of themselves: frames_id, frames, sampling, encoding, …"""
        for number, path in enumerate(self.paths):
            with readable(path, WHAT):
                reader = pa.ipc.open_file(pa.memory_map(str(path)))
                metadata = parse_metadata(reader.schema, path, WHAT)
                self._agree(path, metadata, frames_id)
                self._readers.append(reader)
                self._list_clips(number, metadata)

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
        width, height = batch["width"][0].as_py(), batch["height"][0].as_py()
        shape = (batch.num_rows, height, width, 3)
        data = batch["data"]
        if batch["encoding"][0].as_py() == "raw":
            offsets = np.frombuffer(data.buffers()[1], np.int64)
            start, stop = (int(offsets[data.offset + row]) for row in (0, batch.num_rows))
            flat = np.frombuffer(data.buffers()[2], np.uint8)[start:stop]
            if flat.size != np.prod(shape):
                raise UserError(f"{path}: frames of {clip_id!r} are damaged. Remove it, run again.")
            return flat.reshape(shape)
        return np.stack([_picture(value.as_py(), path, clip_id) for value in data])

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
        )

    def _batch(self, clip_id: str) -> tuple[Path, Any]:
        if clip_id not in self._place:
            reason = self.failed.get(clip_id, "it is not in this frame store")
            raise UserError(f"no frames of clip {clip_id!r}: {reason}")
        file, batch = self._place[clip_id]
        return self.paths[file], self._readers[file].get_batch(batch)

    def _agree(self, path: Path, metadata: dict[str, Any], frames_id: str | None) -> None:
        if frames_id is not None and metadata["frames_id"] != frames_id:
            raise UserError(
                f"{path}: frames_id is {metadata['frames_id']}, expected {frames_id}. "
                "Remove it and run again."
            )
        common = {k: v for k, v in metadata.items() if k not in ("shard", "clips", "schema")}
        self.metadata = self.metadata or common
        if common != self.metadata:
            raise UserError(
                f"{path}: other frames than {self.paths[0]}: {common}, not {self.metadata}"
            )

    def _list_clips(self, number: int, metadata: dict[str, Any]) -> None:
        """Note where each clip of a shard lies, and that the shard is whole."""
        path, reader = self.paths[number], self._readers[number]
        shard, n_shards = parse_shard(metadata["shard"])
        if reader.num_record_batches != metadata["clips"]:
            raise UserError(
                f"{path}: {reader.num_record_batches} clips, its header says {metadata['clips']}. "
                "Remove it and run again."
            )
        for place in range(reader.num_record_batches):
            batch = reader.get_batch(place)
            clip_id = batch["clip_id"][0].as_py()
            wrong = self._fault(batch, clip_id, shard_of(clip_id, n_shards) == shard)
            if wrong:
                raise UserError(f"{path}: clip {clip_id!r}: {wrong}. Remove it and run again.")
            if batch["data"].null_count:
                self.failed[clip_id] = batch["error"][0].as_py()
            else:
                self._place[clip_id] = (number, place)

    def _fault(self, batch: Any, clip_id: str, in_shard: bool) -> str:
        """What is wrong with one clip's rows; "" if nothing."""
        if not in_shard:
            return "it belongs to another shard"
        if clip_id in self._place or clip_id in self.failed:
            return "it occurs twice"
        if batch["data"].null_count:
            return "" if batch.num_rows == 1 else "a failed clip has one row"
        if batch["position"].to_pylist() != list(range(self.frames)):
            return f"{batch.num_rows} frames, expected {self.frames}"
        return ""


def _picture(data: bytes, path: Path, clip_id: str) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise UserError(
            f"{path}: a frame of {clip_id!r} is damaged ({error}). Remove it and run again."
        ) from None


def _shard_files(source: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files to open; for a folder, all shards or an error that names the absent ones."""
    if not isinstance(source, str | Path):
        return [Path(path) for path in source]
    source = Path(source)
    if not source.is_dir():
        return [source]
    return complete_shards(source, ".arrow", "frames", rule="sample_frames")
