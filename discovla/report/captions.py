"""Frames with their pseudo captions beside the video caption (as the paper's Figure 4)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from discovla.captioning.table import CaptionTable
from discovla.data.annotations.base import of_split, read_annotations
from discovla.data.store import FrameStore
from discovla.errors import UserError
from discovla.report.pictures import check_format, drawing, evenly, plain, thumbnail

log = logging.getLogger(__name__)

_KINDS = ("guided", "unguided", "released")
_ROW, _HEAD, _PICTURE, _TEXT = 1.0, 0.6, 1.4, 4.2
"""Inches: a frame's row, a clip's heading, a frame, a column of captions."""
_LETTERS = 68
_BOLD = 12.5
"""Letters of a heading in an inch."""
_GREY = "#666666"


@dataclass(frozen=True)
class ShownClip:
    """A clip as it is drawn."""

    clip_id: str
    video_caption: str
    frames: list[NDArray[np.uint8]]
    timestamps: list[float]
    captions: list[list[str]]
    """Per column, one pseudo caption for each of `frames`."""


def captions_beside(path: str | Path) -> list[CaptionTable]:
    """The table at `path`, and those of its folder that are of the same frames.

    One guided and one unguided table of the same generator stand side by side so. In the order
    guided, unguided, released; files that are no such tables are left alone.
    """
    first = CaptionTable(path)
    tables = [first]
    for other in sorted(Path(path).parent.glob("*.parquet")):
        if other.resolve() == Path(path).resolve():
            continue
        try:
            found = CaptionTable(other)
        except UserError as error:
            log.info("not shown: %s", error)
            continue
        if found.metadata["frames_id"] == first.metadata["frames_id"]:
            tables.append(found)
    return sorted(tables, key=lambda table: _KINDS.index(table.metadata["kind"]))


def show_captions(
    tables: Sequence[CaptionTable],
    annotations: str | Path,
    frames: str | Path,
    output: str | Path,
    *,
    clip_ids: Sequence[str] = (),
    clips: int = 6,
    count: int = 4,
) -> list[str]:
    """Draw some clips, a row per frame and a column per table.

    Args:
        tables: pseudo captions of the same frames.
        annotations: the canonical annotations.
        frames: folder of the frame store.
        output: `.svg` or `.png`.
        clip_ids: clips to draw; none = `clips` of them, evenly spread over the annotations.
        clips: how many, where none is named.
        count: frames per clip, evenly spread.

    Returns:
        The ids of the clips drawn.

    Raises:
        UserError: a clip has no captions or frames; tables and frames do not belong together.
    """
    check_format(output)
    store = FrameStore(frames, tables[0].metadata["frames_id"])
    rows = first_captions(annotations, store, tables[0], clip_ids, clips)
    shown = [shown_clip(row, store, tables, count) for row in rows.itertuples()]
    _draw(shown, [_heading(table) for table in tables], output)
    return [clip.clip_id for clip in shown]


def first_captions(
    annotations: str | Path,
    store: FrameStore,
    table: CaptionTable,
    clip_ids: Sequence[str],
    clips: int,
) -> pd.DataFrame:
    """The first row with pseudo captions of the clips to show; see `show_captions`."""
    if clips < 1:
        raise UserError(f"{clips} clips: give 1 or more")
    train = of_split(read_annotations(annotations), "train")
    train = train[[caption_id in table for caption_id in train["caption_id"]]]
    rows = train.drop_duplicates("clip_id").set_index("clip_id", drop=False)
    rows = rows[[clip_id in store for clip_id in rows["clip_id"]]]
    if absent := [clip_id for clip_id in clip_ids if clip_id not in rows.index]:
        raise UserError(
            f"no pseudo captions or no frames of clip {absent[0]!r}; {table.path} and the frames "
            f"have {len(rows)} training clips, such as {rows['clip_id'].head(3).tolist()}"
        )
    if rows.empty:
        raise UserError(f"{table.path}: no clip of it has frames and annotations here")
    return rows.loc[list(clip_ids)] if clip_ids else rows.iloc[evenly(clips, len(rows))]


def shown_clip(
    row: Any, store: FrameStore, tables: Sequence[CaptionTable], count: int
) -> ShownClip:
    """A row of `first_captions` with `count` frames and their pseudo captions in every table."""
    positions = evenly(count, store.frames)
    frames, meta = store.clip(row.clip_id), store.meta(row.clip_id)
    columns = []
    for table in tables:
        texts = table.for_caption(row.caption_id) if row.caption_id in table else []
        columns.append([texts[p] if texts else "(none)" for p in positions])
    return ShownClip(
        row.clip_id,
        row.caption,
        [thumbnail(frames[p]) for p in positions],
        [float(meta.timestamp[p]) for p in positions],
        columns,
    )


def _heading(table: CaptionTable) -> str:
    model = str(table.metadata.get("model") or "?").rstrip("/").rpartition("/")[2]
    return f"{table.metadata['kind']} · {model}"


def _draw(clips: Sequence[ShownClip], headings: Sequence[str], path: str | Path) -> None:
    heights: list[float] = []
    for clip in clips:
        heights += [_HEAD, *[_ROW] * len(clip.frames)]
    width = _PICTURE + _TEXT * len(headings)
    with drawing(path, (width, sum(heights))) as figure:
        grid = figure.add_gridspec(
            len(heights),
            1 + len(headings),
            height_ratios=heights,
            width_ratios=[_PICTURE, *[_TEXT] * len(headings)],
        )
        line = 0
        for clip in clips:
            head = figure.add_subplot(grid[line, :])
            title = f"{clip.clip_id}: {clip.video_caption}"
            _write(head, plain(title, int(_BOLD * width), lines=2), weight="bold")
            for number, frame in enumerate(clip.frames):
                line += 1
                picture = figure.add_subplot(grid[line, 0])
                picture.imshow(frame, interpolation="none")
                picture.set_axis_off()
                for column, heading in enumerate(headings):
                    panel = figure.add_subplot(grid[line, 1 + column])
                    _write(
                        panel, plain(clip.captions[column][number], _LETTERS, lines=5), fontsize=8
                    )
                    if number == 0:
                        panel.set_title(
                            plain(heading, _LETTERS, 1), fontsize=8, loc="left", color=_GREY
                        )
                picture.set_title(f"{clip.timestamps[number]:.1f} s", fontsize=7, color=_GREY)
            line += 1


def _write(panel: Any, text: str, **style: Any) -> None:
    """A text alone in its panel."""
    panel.set_axis_off()
    panel.text(0, 0.5, text, va="center", ha="left", transform=panel.transAxes, **style)
