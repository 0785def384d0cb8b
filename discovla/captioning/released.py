"""The authors' own pseudo captions: their JSON brought into the table of this project."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from discovla.captioning import table
from discovla.captioning.clips import Answer, TrainingClip, rows_of, training_clips
from discovla.captioning.engine import fault_of
from discovla.data.annotations.base import of_split, read_annotations
from discovla.data.store import FrameStore
from discovla.errors import UserError
from discovla.storage.files import read_json

log = logging.getLogger(__name__)


def released_shard(
    released: str | Path,
    frames: str | Path,
    annotations: str | Path,
    output: str | Path,
    *,
    captions_id: str,
) -> dict[str, Any]:
    """Take the pseudo captions of one shard's training clips from the authors' file.

    Their key is `{video_id}_{caption}`, joined literally: captions are kept as they stand. Video
    captions without a key get no rows and are listed as `absent` in the metadata (the authors'
    code leaves these pairs out of training).

    Args:
        released: JSON of {key: [one caption per frame]}.
        frames: one shard of the frame store.
        annotations: the canonical annotations.
        output: the shard of the caption table.
        captions_id: identity of these captions.

    Returns:
        The metadata written.

    Raises:
        UserError: a file is absent or damaged, a value is no list of F texts, or no key fits.
    """
    content = _read(released)
    _check_keys(content, annotations, released)
    store = FrameStore([frames])
    clips, excluded = training_clips(annotations, store)
    found: list[TrainingClip] = []
    absent: list[str] = []
    for clip in clips:
        present = tuple(pair for pair in clip.captions if _key(clip, pair[1]) in content)
        absent += [pair[0] for pair in clip.captions if pair not in present]
        found.append(clip._replace(captions=present))
    metadata = {
        "captions_id": captions_id,
        "shard": Path(frames).stem,
        "frames_id": store.frames_id,
        "frames_per_clip": store.frames,
        "kind": "released",
        "prompt": None,
        "engine": "released",
        "model": "LLaVA-NeXT (the authors' run)",
        "revision": None,
        "dtype": None,
        "seed": None,
        "excluded": excluded,
        "absent": sorted(absent),
    }
    rows = (row for clip in found for row in _rows(clip, store, content, released))
    table.write_shard(rows, output, metadata)
    return metadata


def _key(clip: TrainingClip, caption: str) -> str:
    return f"{clip.video_id}_{caption}"


def _read(path: str | Path) -> dict[str, Any]:
    if not Path(path).is_file():
        raise UserError(
            f"{path}: no such file. It is the authors' file of pseudo captions (linked in their "
            "repository); place it there, or set captions: guided to generate them."
        )
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected an object of {{key: [captions]}}")
    return content


def _check_keys(content: dict[str, Any], annotations: str | Path, path: str | Path) -> None:
    """Log how many training captions have a key; `UserError` if none has."""
    train = of_split(read_annotations(annotations), "train")
    keys = train["video_id"] + "_" + train["caption"]
    n_found = int(keys.isin(content.keys()).sum())
    if n_found == 0:
        raise UserError(
            f"{path}: no key fits {annotations}. Expected keys such as {keys[0]!r}; the file has "
            f"{next(iter(content), None)!r}."
        )
    unused = len(content.keys() - set(keys))
    log.info(
        "%s: %d of %d training captions have a key, %d do not; %d keys are not used",
        path,
        n_found,
        len(keys),
        len(keys) - n_found,
        unused,
    )


def _rows(
    clip: TrainingClip, store: FrameStore, content: dict[str, Any], path: str | Path
) -> list[dict[str, Any]]:
    def answer(caption: str, position: int) -> Answer:
        texts = content[_key(clip, caption)]
        if (
            not isinstance(texts, list)
            or len(texts) != store.frames
            or not all(isinstance(text, str) for text in texts)
        ):
            raise UserError(
                f"{path}: key {_key(clip, caption)!r} should hold {store.frames} captions, one "
                "for each frame; set frames: to the number in this file"
            )
        text = texts[position].strip()
        return Answer(text, None, "released", fault_of(text) or "ok")

    return list(rows_of(clip, store.meta(clip.clip_id), answer))
