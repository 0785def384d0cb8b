"""Every training caption × every frame exactly once: the check behind `merge-captions`."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from discovla.errors import UserError

_SHOWN = 5


class Expected:
    """The (caption, position) pairs that a table must hold, ticked off shard by shard.

    Args:
        train: training rows of the canonical annotations.
        frames: F, positions per caption.
        where: the annotation file, for messages.
        excluded: clips without frames, whose captions need no rows.
        absent: caption ids that need no rows.
    """

    def __init__(
        self,
        train: pd.DataFrame,
        frames: int,
        where: str | Path,
        excluded: Collection[str] = (),
        absent: Collection[str] = (),
    ) -> None:
        self.where = where
        self.columns = {
            name: pa.array(train[column].to_numpy(dtype=object), pa.string())
            for name, column in (
                ("caption_id", "caption_id"),
                ("clip_id", "clip_id"),
                ("video_caption", "caption"),
            )
        }
        free = train["clip_id"].isin(list(excluded)) | train["caption_id"].isin(list(absent))
        self._needed: NDArray[np.bool_] = ~free.to_numpy(dtype=bool)
        self._seen = np.zeros((len(train), frames), dtype=bool)

    def take(self, table: pa.Table, path: str | Path) -> pa.Table:
        """Tick off the rows of one shard and return them ordered by caption, then position.

        Raises:
            UserError: a row is of no training caption, of another text or clip than the
                annotations say, beyond the last position, or there already.
        """
        place = pc.index_in(
            table["caption_id"].cast(pa.string()), value_set=self.columns["caption_id"]
        )
        if place.null_count:
            row = pc.index(place.is_null(), True).as_py()
            self._refuse(path, table, row, f"is no training caption of {self.where}")
        for name in ("clip_id", "video_caption"):
            same = pc.equal(table[name].cast(pa.string()), self.columns[name].take(_one(place)))
            if not pc.all(same, min_count=0).as_py():
                row = pc.index(same, False).as_py()
                self._refuse(path, table, row, f"has another {name} than in {self.where}")
        rows = place.to_numpy().astype(np.int64)
        positions = table["position"].to_numpy().astype(np.int64)
        n_frames = self._seen.shape[1]
        outside = (positions < 0) | (positions >= n_frames)
        if outside.any():
            self._refuse(path, table, int(outside.argmax()), f"there are only {n_frames} frames")
        keys = rows * n_frames + positions
        double = self._seen.reshape(-1)[keys] | pd.Series(keys).duplicated().to_numpy()
        if double.any():
            self._refuse(path, table, int(double.argmax()), "occurs twice")
        self._seen.reshape(-1)[keys] = True
        return table.take(pa.array(np.argsort(keys, kind="stable")))

    def check_complete(self) -> None:
        """Raise `UserError` naming the first five missing pairs, if any is missing."""
        wanted = self._needed | self._seen.any(axis=1)
        missing = np.argwhere(~self._seen & wanted[:, None])
        if len(missing) == 0:
            return
        ids = self.columns["caption_id"]
        pairs = [f"({ids[int(n)].as_py()!r}, {position})" for n, position in missing[:_SHOWN]]
        raise UserError(
            f"{len(missing)} of {int(wanted.sum()) * self._seen.shape[1]} pseudo captions that "
            f"{self.where} asks for are missing; the first (caption_id, position): "
            f"{', '.join(pairs)}. Remove the caption shards that are incomplete and run again."
        )

    def _refuse(self, path: str | Path, table: pa.Table, row: int, why: str) -> None:
        values: dict[str, Any] = table.select(["caption_id", "position"]).slice(row, 1).to_pydict()
        raise UserError(
            f"{path}: row {row + 1} (caption {values['caption_id'][0]!r}, position "
            f"{values['position'][0]}): {why}. Remove this file and run again."
        )


def _one(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
