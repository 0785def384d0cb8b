"""A trained run in three lines: captions and video files in, features and similarities out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from discovla.data.augment import prepare
from discovla.data.decode import Request
from discovla.data.worker import DEFAULT_TIMEOUT, DecodeWorker
from discovla.errors import UserError
from discovla.models.retriever import Retriever
from discovla.training.checkpoint import Run, load_trained
from discovla.training.device import reproducible
from discovla.training.trainer import ADAPTER_NAME

Features = npt.NDArray[np.float32]
Frames = npt.NDArray[np.uint8]
CONFIG_NAME = "config.json"
_TEXTS = 256


class Model:
    """Encodes captions and videos exactly as the run was evaluated.

    Frames are taken by the run's own rule and not stored in between: where the workflow kept them
    as JPEG, features differ slightly from its own.
    """

    def __init__(self, run: Run, metadata: dict[str, str]) -> None:
        self.run, self.metadata = run, metadata

    @property
    def retriever(self) -> Retriever:
        """The torch module."""
        return self.run.retriever

    @property
    def logit_scale(self) -> float:
        """exp of CLIP's logit scale: similarities times this are its logits."""
        return float(self.retriever.logit_scale.detach())

    def encode_texts(self, texts: Sequence[str]) -> Features:
        """Unit features (T, D) of captions."""
        if isinstance(texts, str):
            raise UserError("encode_texts takes a list of captions, not one string")
        words = min(self.run.settings.words, self.run.backbone.words_limit)
        device, parts = self.retriever.logit_scale.device, []
        with torch.inference_mode(), reproducible(device):
            for start in range(0, len(texts), _TEXTS):
                ids, mask = self.run.backbone.tokenize(texts[start : start + _TEXTS], words)
                longest = int(mask.sum(-1).max())
                moved = (t[:, :longest].to(device) for t in (ids, mask))
                parts.append(F.normalize(self.retriever.encode_text(*moved), dim=-1).cpu())
        return self._joined(parts)

    def encode_videos(
        self,
        paths: Sequence[str | Path],
        *,
        batch_size: int = 8,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> Features:
        """Unit features (V, D) of whole video files.

        Args:
            paths: of the videos.
            batch_size: videos at once.
            timeout: seconds of wall time to decode one.

        Raises:
            UserError: a file that is absent or gives no frames.
        """
        if isinstance(paths, str | Path):
            raise UserError("encode_videos takes a list of paths, not one path")
        parts = []
        with DecodeWorker(timeout) as worker:
            for start in range(0, len(paths), batch_size):
                clips = [self._frames(path, worker) for path in paths[start : start + batch_size]]
                parts.append(torch.from_numpy(self.encode_frames(clips, batch_size=batch_size)))
        return self._joined(parts)

    def encode_frames(self, clips: Sequence[Frames], *, batch_size: int = 8) -> Features:
        """Unit features (V, D) of videos whose frames are there: uint8 RGB (F, H, W, 3) each."""
        device, side = self.retriever.logit_scale.device, self.run.backbone.image_size
        parts = []
        with torch.inference_mode(), reproducible(device):
            for start in range(0, len(clips), batch_size):
                batch = [prepare(clip, side) for clip in clips[start : start + batch_size]]
                video = torch.from_numpy(np.stack(batch)).to(device)
                pooled = self.retriever.encode_video(video).pooled
                parts.append(F.normalize(pooled, dim=-1).cpu())
        return self._joined(parts)

    def similarity(self, texts: Sequence[str], videos: Sequence[str | Path]) -> Features:
        """Cosine similarities (T, V) of captions and video files."""
        return np.asarray(self.encode_texts(texts) @ self.encode_videos(videos).T)

    def _frames(self, path: str | Path, worker: DecodeWorker) -> Frames:
        if not Path(path).is_file():
            raise UserError(f"{path}: no such video")
        settings = self.run.settings
        clip = worker.read(
            Request(
                path=str(path),
                sampling=settings.sampling,
                frames=settings.frames,
                candidate_fps=settings.sampling_fps,
            )
        )
        return clip.frames

    def _joined(self, parts: list[torch.Tensor]) -> Features:
        if not parts:
            return np.zeros((0, self.run.backbone.dims.embed), np.float32)
        return np.asarray(torch.cat(parts).numpy())


def load(folder: str | Path, *, device: str = "auto", weights: str | Path | None = None) -> Model:
    """A run for inference.

    Args:
        folder: of one seed of a run (results/…/runs/RUN/seed42), of a zero-shot run, or one that
            `discovla export` has made.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        weights: CLIP's weights, in place of those that the run names; the digest must fit.

    Raises:
        UserError: files that are absent, damaged or do not fit each other.
    """
    config, adapter = run_files(folder)
    changes: dict[str, Any] = {} if weights is None else {"weights": str(weights)}
    return Model(*load_trained(config, adapter, device, backbone=changes))


def run_files(folder: str | Path) -> tuple[Path, Path | None]:
    """config.json and adapter of a run's folder; the config may lie one level above."""
    folder = Path(folder)
    adapter = folder / ADAPTER_NAME
    for config in (folder / CONFIG_NAME, folder.parent / CONFIG_NAME):
        if config.is_file():
            return config, adapter if adapter.is_file() else None
    raise UserError(
        f"{folder}: no run: neither it nor the folder above holds {CONFIG_NAME}. Give "
        "results/DATASET/runs/RUN/seedN, or a folder that 'discovla export' has made"
    )
