"""Cosine similarity of a clip's frames and pseudo captions in a run (as the paper's Figure 5)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from discovla.captioning.table import CaptionTable
from discovla.data.augment import prepare
from discovla.data.dataset import token_mask
from discovla.report.captions import first_captions
from discovla.report.pictures import check_format, drawing, plain, thumbnail
from discovla.training.checkpoint import Run, load_trained
from discovla.training.data import open_frames, token_ids
from discovla.training.device import reproducible

_CELL, _CAPTIONS = 0.62, 5.6
"""Inches: one similarity, and the list of captions."""


def frame_caption_similarity(
    run: Run, frames: NDArray[np.uint8], captions: Sequence[str]
) -> NDArray[np.float32]:
    """Cosine of every frame with every pseudo caption of one clip, float32 (F, N).

    Both are encoded as for the frame-level alignment of §3.4: all frames of the clip together,
    and all captions together.

    Args:
        run: with its trained tensors.
        frames: uint8 RGB (F, H, W, 3).
        captions: N texts.
    """
    device = run.retriever.logit_scale.device
    video = torch.from_numpy(prepare(frames, run.backbone.image_size))[None].to(device)
    ids = token_ids(run.backbone)(list(captions), run.settings.words)[None].to(device)
    with torch.inference_mode(), reproducible(device):
        seen = run.retriever.encode_video(video, torch.ones(video.shape[:2], device=device)).frames
        said = run.retriever.encode_frame_texts(ids, token_mask(ids))
        similarity = F.normalize(seen, dim=-1) @ F.normalize(said, dim=-1).transpose(1, 2)
    result: NDArray[np.float32] = similarity[0].float().cpu().numpy()
    return result


def show_similarity(
    config: str | Path,
    adapter: str | Path | None,
    captions: str | Path,
    annotations: str | Path,
    frames: str | Path,
    output: str | Path,
    *,
    clip_ids: Sequence[str] = (),
    clips: int = 2,
    device: str = "auto",
) -> list[str]:
    """Draw the similarity of some clips, with the maximum of every row and column marked.

    Args:
        config: the run's config.json.
        adapter: its trained tensors; None for a run that trains nothing.
        captions: a merged table of pseudo captions.
        annotations: the canonical annotations.
        frames: folder of the frame store.
        output: `.svg` or `.png`.
        clip_ids: clips to draw; none = `clips` of them, evenly spread over the annotations.
        clips: how many, where none is named.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Returns:
        The ids of the clips drawn.

    Raises:
        UserError: files that are absent, damaged or do not belong together; no such clip.
    """
    check_format(output)
    run, metadata = load_trained(config, adapter, device)
    table = CaptionTable(captions, frames_id=run.config["frames_id"])
    store = open_frames(frames, run.config)
    rows = first_captions(annotations, store, table, clip_ids, clips)
    shown = []
    for row in rows.itertuples():
        pictures, texts = store.clip(row.clip_id), table.for_caption(row.caption_id)
        similarity = frame_caption_similarity(run, pictures, texts)
        title = f"{row.clip_id}: {row.caption}"
        shown.append((title, [thumbnail(picture) for picture in pictures], texts, similarity))
    seed = f", seed {metadata['seed']}" if metadata else ""
    _draw(shown, f"{run.run_id}{seed}: cosine of frames (rows) and pseudo captions", output)
    return [str(clip_id) for clip_id in rows["clip_id"]]


def _draw(clips: Sequence[Any], title: str, path: str | Path) -> None:
    size = max(len(texts) for _, _, texts, _ in clips) * _CELL
    with drawing(path, (_CELL + size + _CAPTIONS + 1, len(clips) * (size + 1) + 0.6)) as figure:
        figure.suptitle(f"{title}\n□ largest of its row, ○ largest of its column", fontsize=9)
        parts = figure.subfigures(len(clips), 1, squeeze=False)[:, 0]
        for part, (heading, frames, texts, similarity) in zip(parts, clips, strict=True):
            part.suptitle(plain(heading, 110, 2), fontsize=9, weight="bold")
            grid = part.add_gridspec(
                len(frames), 3, width_ratios=[_CELL, size, _CAPTIONS], hspace=0, wspace=0
            )
            for number, frame in enumerate(frames):
                picture = part.add_subplot(grid[number, 0])
                picture.imshow(frame, interpolation="none")
                picture.set_axis_off()
            _heat_map(part.add_subplot(grid[:, 1]), similarity)
            words = part.add_subplot(grid[:, 2])
            words.set_axis_off()
            for number, text in enumerate(texts):
                place = 1 - (number + 0.5) / len(texts)
                said = plain(f"{number + 1}  {text}", 80, 3)
                words.text(0, place, said, va="center", transform=words.transAxes, fontsize=7)


def _heat_map(panel: Any, similarity: NDArray[np.float32]) -> None:
    rows, columns = similarity.shape
    panel.imshow(similarity, cmap="Blues", aspect="auto", interpolation="none")
    low, high = float(similarity.min()), float(similarity.max())
    dark = low + 0.7 * (high - low)  # from here on white letters have the better contrast
    for i in range(rows):
        for j in range(columns):
            colour = "white" if similarity[i, j] > dark else "black"
            panel.text(j, i, f"{similarity[i, j]:.2f}", ha="center", va="center", color=colour)
    row, column = maxima(similarity)
    marks = {"linewidths": 1.5, "edgecolors": "#c23b22", "facecolors": "none"}
    panel.scatter(row, range(rows), marker="s", s=620, gid="row-maxima", **marks)
    panel.scatter(range(columns), column, marker="o", s=820, gid="column-maxima", **marks)
    panel.set_xticks(range(columns), [str(n + 1) for n in range(columns)])
    panel.set_yticks(range(rows), [str(n + 1) for n in range(rows)])
    panel.set_xlabel("pseudo caption", fontsize=8)
    panel.set_ylabel("frame", fontsize=8)


def maxima(similarity: NDArray[np.float32]) -> tuple[list[int], list[int]]:
    """The column of every row's largest value, and the row of every column's."""
    return similarity.argmax(1).tolist(), similarity.argmax(0).tolist()
