"""Features of a split: the only step of evaluation that runs the model."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from discovla.data.dataset import EvalClips, EvalTexts
from discovla.errors import UserError
from discovla.retrieval.rows import write_rows
from discovla.storage.tensors import VERSION, save_tensors
from discovla.training.checkpoint import Run, load_trained, trained_parameters
from discovla.training.data import data_identity, open_annotations, open_frames, token_ids
from discovla.training.device import enough_memory, reproducible, to_device

LOG = logging.getLogger(__name__)
SPLITS = ("test", "val", "bank")
_TEXTS_PER_CLIP = 16
"""A batch of captions is this much larger than one of videos."""


@dataclass(frozen=True)
class _Encoded:
    """Features of one side and the ids of their rows."""

    kind: str
    ids: Sequence[str]
    features: Tensor


def extract_features(
    config_path: str | Path,
    adapter_path: str | Path | None,
    split: str,
    annotations: str | Path,
    frames_dir: str | Path | None,
    output: str | Path,
    *,
    seed: int,
    device: str = "auto",
    batch_size: int = 32,
    workers: int = 0,
    allow_missing: bool = False,
) -> dict[str, str]:
    """Encode one split and write its features, float32 and L2-normalised.

    `output` (safetensors) holds text (T, D), logit_scale () = exp of CLIP's, and, unless the split
    is `bank`, video (V, D) and truth (T) int64, the row in `video` of every text. A Parquet file
    beside it names the rows: kind (text or video), row, id.

    Args:
        config_path: the run's config.json.
        adapter_path: its trained tensors; None for a run that trains nothing.
        split: `test`, `val`, or `bank` = the training captions, without videos.
        annotations: the canonical annotations.
        frames_dir: folder of the frame store; not read for `bank`.
        output: the file to write.
        seed: of the run; must be the adapter's.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        batch_size: videos at once; changes nothing but the last digits.
        workers: loader processes.
        allow_missing: leave clips without frames, and their captions, out; they are listed in the
            metadata and change the data_id.

    Returns:
        The metadata written.

    Raises:
        UserError: inputs that are absent, damaged or of another run; clips without frames.
    """
    if split not in SPLITS:
        raise UserError(f"split is {split!r}; allowed: {', '.join(SPLITS)}")
    if batch_size < 1:
        raise UserError(f"batch size is {batch_size}; give 1 or more")
    run, adapter = load_trained(config_path, adapter_path, device)
    _check_seed(adapter, seed, adapter_path)
    part = "train" if split == "bank" else split
    rows, annotations_id = open_annotations(annotations, run.config, part)
    tensors = {"logit_scale": run.retriever.logit_scale.detach().float().cpu()}
    sides: list[_Encoded] = []
    excluded: list[str] = []
    frames: dict[str, str] = {}
    place = run.retriever.logit_scale.device
    advice = f"Encode fewer videos at once: --batch-size {max(1, batch_size // 2)}."
    with torch.inference_mode(), reproducible(place), enough_memory(place, advice):
        clip_ids = None
        if split != "bank":
            clips, frames = _open_clips(run, rows, frames_dir, allow_missing)
            excluded, clip_ids = clips.excluded, clips.clip_ids
            sides.append(_Encoded("video", clip_ids, _videos(run, clips, batch_size, workers)))
        texts, truth = _texts(run, rows, clip_ids, batch_size * _TEXTS_PER_CLIP)
        sides.insert(0, texts)
    if truth is not None:
        tensors["truth"] = truth
    metadata = {
        "schema": VERSION,
        "run_id": run.run_id,
        "dataset": str(run.config["dataset"]),
        "seed": str(seed),
        "split": split,
        "annotations_id": annotations_id,
        "data_id": data_identity(annotations_id, excluded),
        "excluded": json.dumps(sorted(excluded), ensure_ascii=False),
        "dtype": "fp32",
        "parameters": str(sum(p.numel() for p in trained_parameters(run.retriever).values())),
    }
    metadata |= frames
    if adapter:
        metadata |= {"step": adapter["step"], "selection": adapter["selection"]}
        metadata |= {"train_data_id": adapter["data_id"], "train_excluded": adapter["excluded"]}
    _write(Path(output), tensors, sides, metadata)
    return metadata


def _check_seed(adapter: dict[str, str], seed: int, path: str | Path | None) -> None:
    if adapter and adapter["seed"] != str(seed):
        raise UserError(f"{path}: trained with seed {adapter['seed']}, --seed is {seed}")


def _open_clips(
    run: Run, rows: pd.DataFrame, frames_dir: str | Path | None, allow_missing: bool
) -> tuple[EvalClips, dict[str, str]]:
    """The videos of a split; what decoded them (`reader`) and how they are kept (`stored`)."""
    if frames_dir is None:
        raise UserError(
            "videos are encoded from their frames; give --frames "
            f"resources/{run.config['dataset']}/frames/{run.config['frames_id']}"
        )
    store = open_frames(frames_dir, run.config)
    clips = EvalClips(rows, store, run.backbone.image_size, allow_missing=allow_missing)
    if clips.excluded:
        LOG.warning(
            "%d clips without frames and their captions are left out: %s",
            *(len(clips.excluded), ", ".join(map(repr, clips.excluded[:5]))),
        )
    readers = sorted({store.meta(clip).reader for clip in clips.clip_ids})
    return clips, {"reader": ", ".join(readers), "stored": store.storage}


def _videos(run: Run, clips: EvalClips, size: int, workers: int) -> Tensor:
    """(V, D) mean of normalised frames, normalised again (parity with the released code)."""
    encode = run.retriever.encode_video
    return _encode(
        clips.batches(size, workers),
        lambda batch: encode(batch["video"], batch["video_mask"]).pooled,
        run,
        "videos",
        -(-len(clips) // size),
    )


def _texts(
    run: Run, rows: pd.DataFrame, clip_ids: Sequence[str] | None, size: int
) -> tuple[_Encoded, Tensor | None]:
    """Captions of the clips (None: all), each distinct one encoded once; and their truth (T)."""
    truth = None
    if clip_ids is not None:
        place = {clip: row for row, clip in enumerate(clip_ids)}
        rows = rows[rows["clip_id"].isin(place)]
        truth = torch.tensor([place[clip] for clip in rows["clip_id"]])
    which, _ = pd.factorize(rows["caption"])  # numbered by first appearance
    distinct = rows[~rows["caption"].duplicated()]
    texts = EvalTexts(distinct, token_ids(run.backbone), run.settings.words)
    encode = run.retriever.encode_text
    features = _encode(
        texts.batches(size),
        lambda batch: encode(batch["text_ids"], batch["text_mask"]),
        run,
        "captions",
        -(-len(texts) // size),
    )
    return _Encoded("text", rows["caption_id"].tolist(), features[torch.from_numpy(which)]), truth


def _encode(
    batches: Iterable[dict[str, Tensor]],
    encode: Callable[[dict[str, Tensor]], Tensor],
    run: Run,
    what: str,
    total: int,
) -> Tensor:
    """Features of all batches, float32, L2-normalised, on the CPU."""
    device = run.retriever.logit_scale.device
    parts = []
    for batch in _shown(batches, what, total):
        features = encode(to_device(batch, device)).float()
        parts.append(F.normalize(features, dim=-1))
    return torch.cat(parts).cpu()


def _shown(batches: Iterable[Any], what: str, total: int) -> Iterator[Any]:
    slow = 0.1 if sys.stderr.isatty() else 10
    return iter(tqdm(batches, what, total, file=sys.stderr, mininterval=slow))


def _write(
    output: Path, tensors: dict[str, Tensor], sides: Sequence[_Encoded], metadata: dict[str, str]
) -> None:
    """The table of ids first, so that the features are never there without it."""
    for side in sides:
        tensors[side.kind] = side.features.contiguous()
        bad = ~side.features.isfinite().all(-1)
        if bad.any():
            raise UserError(
                f"run {metadata['run_id']}: {int(bad.sum())} features of {side.kind} are not "
                f"finite, first {side.ids[int(bad.int().argmax())]!r}; train this run again"
            )
    rows = pd.concat(
        pd.DataFrame({"kind": side.kind, "row": range(len(side.ids)), "id": side.ids})
        for side in sides
    )
    write_rows(output, rows, metadata)
    save_tensors(output, tensors, metadata)
