"""Captioning one shard: what is asked, once each, in parts that survive an interruption."""

from __future__ import annotations

import logging
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from discovla.captioning import table
from discovla.captioning.clips import Answer, TrainingClip, rows_of, training_clips
from discovla.captioning.engine import Caption, Captioner, fault_of
from discovla.captioning.length import WORDS, tokens_read
from discovla.captioning.prompt import PROMPTS, prompt_text
from discovla.data.store import FrameStore
from discovla.errors import UserError
from discovla.interruption import StopRequest
from discovla.storage.files import content_hash

log = logging.getLogger(__name__)

#: Captions generated between two saves.
PART_SIZE = 512


class Key(NamedTuple):
    """A question: equal frames of a clip and equal prompts are one question."""

    clip_id: str
    frame_index: int
    prompt: str


class Part(NamedTuple):
    """Clips captioned between two saves."""

    clips: list[TrainingClip]
    size: int
    """Questions about them."""


def caption_shard(
    frames: str | Path,
    annotations: str | Path,
    kind: str,
    captioner: Captioner,
    output: str | Path,
    *,
    captions_id: str,
    words: int = WORDS,
    part_size: int = PART_SIZE,
) -> dict[str, Any]:
    """Ask `captioner` about every frame of every training clip of one shard.

    Finished parts are kept in `{output}.parts/` until the whole shard is written; run again after
    an interruption, the same call takes them over. SIGTERM lets the running part be finished.

    Args:
        frames: one shard of the frame store.
        annotations: the canonical annotations.
        kind: a key of `PROMPTS`.
        captioner: who answers.
        output: the shard of the caption table.
        captions_id: identity of these captions.
        words: CLIP's tokens of a text, both marks included: what an answer should be enough for.
        part_size: captions generated between two saves.

    Returns:
        The metadata written.

    Raises:
        UserError: an input is absent or damaged, or `kind` is unknown.
        Terminated: SIGTERM, after a part was saved.
    """
    if kind not in PROMPTS:
        raise UserError(f"no prompt of kind {kind!r}; allowed: {', '.join(PROMPTS)}")
    store = FrameStore([frames])
    clips, excluded = training_clips(annotations, store)
    metadata = {
        "captions_id": captions_id,
        "shard": Path(frames).stem,
        "frames_id": store.frames_id,
        "frames_per_clip": store.frames,
        "kind": kind,
        "prompt": PROMPTS[kind],
        "words": words,
        **captioner.describe(),
        "excluded": excluded,
        "absent": [],
    }
    if excluded:
        log.warning("%d clips without frames get no captions: %s", len(excluded), excluded[:5])
    parts = list(_divide(clips, kind, store, part_size))
    folder = Path(f"{output}.parts")
    paths = [folder / f"{number:05d}.parquet" for number in range(1, len(parts) + 1)]
    names = [_identity(part.clips, metadata) for part in parts]
    done = [_is_done(path, name) for path, name in zip(paths, names, strict=True)]
    if any(done):
        log.info("%d of %d parts are there already", sum(done), len(parts))
    ready = sum(part.size for part, is_done in zip(parts, done, strict=True) if is_done)
    total = sum(part.size for part in parts)
    with _progress(total, ready) as bar, StopRequest(signal.SIGTERM) as stop:
        for path, name, part, is_done in zip(paths, names, parts, done, strict=True):
            stop.obey()
            if not is_done:
                rows = _caption_part(part.clips, kind, store, captioner, tokens_read(words))
                table.write_shard(rows, path, {**metadata, "part": name})
                bar.update(part.size)
        # A stop that is asked for now comes too late: the shard is done in a moment.
        _join(paths, output, metadata)
        shutil.rmtree(folder, ignore_errors=True)
    return metadata


def check_inputs(frames: str | Path, annotations: str | Path, words: int) -> None:
    """What `caption_shard` would refuse, told without a captioner.

    Raises:
        UserError: an input is absent or damaged, or `words` leaves nothing to read.
    """
    if words < 3:
        raise UserError(f"words is {words}; both marks and at least one word are 3 (--words)")
    training_clips(annotations, FrameStore([frames]))


def _divide(
    clips: Iterable[TrainingClip], kind: str, store: FrameStore, part_size: int
) -> Iterator[Part]:
    """Consecutive clips with at least `part_size` questions together; the same at every call."""
    part: list[TrainingClip] = []
    size = 0
    for clip in clips:
        part.append(clip)
        size += len(_questions(clip, kind, store))
        if size >= part_size:
            yield Part(part, size)
            part, size = [], 0
    if part:
        yield Part(part, size)


def _questions(clip: TrainingClip, kind: str, store: FrameStore) -> dict[Key, int]:
    """Each question about a clip once, with the first position of its frame, frame by frame."""
    prompts = dict.fromkeys(prompt_text(kind, caption) for _, caption in clip.captions)
    questions: dict[Key, int] = {}
    for position, index in enumerate(store.meta(clip.clip_id).frame_index.tolist()):
        for prompt in prompts:
            questions.setdefault(Key(clip.clip_id, index, prompt), position)
    return questions


def _caption_part(
    part: Sequence[TrainingClip], kind: str, store: FrameStore, captioner: Captioner, read: int
) -> list[dict[str, Any]]:
    """The rows of some clips."""
    keys: list[Key] = []
    images: list[NDArray[np.uint8]] = []
    for clip in part:
        # A copy, because the store's view cannot be written and torch insists that it could be.
        frames = list(store.clip(clip.clip_id).copy())
        for key, position in _questions(clip, kind, store).items():
            keys.append(key)
            images.append(frames[position])
    found = _answers(images, [key.prompt for key in keys], captioner, read)
    answers = dict(zip(keys, found, strict=True))
    rows: list[dict[str, Any]] = []
    for clip in part:
        meta = store.meta(clip.clip_id)

        def answer(
            caption: str,
            position: int,
            clip_id: str = clip.clip_id,
            index: NDArray[np.int64] = meta.frame_index,
        ) -> Answer:
            return answers[Key(clip_id, int(index[position]), prompt_text(kind, caption))]

        rows += rows_of(clip, meta, answer)
    _report_faults(rows)
    return rows


def _answers(
    images: Sequence[NDArray[np.uint8]], prompts: Sequence[str], captioner: Captioner, read: int
) -> list[Answer]:
    """One answer per question; those with a fault are asked for once more."""
    answers = [_answer(caption, read) for caption in captioner.caption(images, prompts)]
    retries: tuple[tuple[tuple[str, ...], dict[str, bool]], ...] = (
        (("empty", "repeated"), {"second_try": True}),
        (("unfinished",), {"longer": True}),
    )
    faults = [answer.status for answer in answers]
    for kinds, how in retries:
        again = [i for i, fault in enumerate(faults) if fault in kinds]
        if again:
            second = captioner.caption(
                [images[i] for i in again], [prompts[i] for i in again], **how
            )
            for i, caption in zip(again, second, strict=True):
                answers[i] = _better(answers[i], _answer(caption, read))
    return answers


def _answer(caption: Caption, read: int) -> Answer:
    return Answer.of(caption, fault_of(caption.text, caption.finish_reason, read) or "ok")


def _better(first: Answer, second: Answer) -> Answer:
    """The more useful of two answers: a loop says more than nothing, the beginning more than it."""
    if second.status == "ok":
        return second._replace(status="retried")
    worth = ("empty", "repeated", "unfinished").index
    gain = worth(second.status) - worth(first.status)
    longer = gain == 0 and first.status == "unfinished"
    return second if gain > 0 or longer else first


def _report_faults(rows: Sequence[Mapping[str, Any]]) -> None:
    bad = [row for row in rows if row["status"] in table.FAULTS]
    for row in bad[:20]:
        log.warning(
            "caption %r, position %d: %s after two tries: %r",
            row["caption_id"],
            row["position"],
            row["status"],
            row["pseudo_caption"],
        )
    if len(bad) > 20:
        log.warning("… and %d more; the column `status` has them all", len(bad) - 20)


def _identity(part: Sequence[TrainingClip], metadata: Mapping[str, Any]) -> str:
    """What a part must have been made from to be taken over."""
    deciding = {k: v for k, v in metadata.items() if k != "excluded"}
    return content_hash({"metadata": deciding, "clips": [list(clip) for clip in part]}, 32)


def _is_done(path: Path, name: str) -> bool:
    if not path.exists():
        return False
    try:
        return table.read_metadata(path).get("part") == name
    except UserError as error:
        log.warning("made again: %s", error)
        return False


def _join(paths: Iterable[Path], output: str | Path, metadata: Mapping[str, Any]) -> None:
    with table.writer(output, metadata) as handle:
        for path in paths:
            table.append(handle, table.read(path))


def _progress(total: int, done: int) -> tqdm[Any]:
    interval = 0.5 if sys.stderr.isatty() else 5.0
    return tqdm(total=total, initial=done, unit="caption", mininterval=interval, file=sys.stderr)
