"""The model of an index: a trained run or plain CLIP, kept with the index, and its vectors."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from discovla.deploy.inference import load
from discovla.errors import UserError
from discovla.experiments import Experiments
from discovla.methods.options import read_settings
from discovla.models.dims import LOCAL_PREFIX
from discovla.search.windows import Frames, Sampling
from discovla.storage.files import atomic_path, sha256_file, write_json
from discovla.training.checkpoint import read_run_config

CONFIG, ADAPTER = "config.json", "adapter.safetensors"
NO_RUN = "not of a run"
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Source:
    """Where a model comes from, before it is loaded."""

    config: Mapping[str, Any]
    adapter: Path | None

    def identity(self) -> dict[str, Any]:
        """What makes its vectors what they are."""
        backbone = self.config["backbone"]
        return {
            "run_id": self.config["run_id"],
            "weights": backbone.get("sha256") or str(backbone["weights"]),
            "adapter": sha256_file(self.adapter) if self.adapter else None,
        }

    def keep(self, folder: Path) -> None:
        """Copy it beside an index, which then needs nothing of it but CLIP's weights."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.adapter:
            with atomic_path(folder / ADAPTER) as temporary:
                shutil.copyfile(self.adapter, temporary)
        write_json(folder / CONFIG, dict(self.config))


def of_run(folder: Path) -> Source:
    """The model of a run's folder: `…/runs/RUN` or `…/runs/RUN/seed0`.

    Raises:
        UserError: no run there, or several seeds to choose from.
    """
    config = next((p / CONFIG for p in (folder, folder.parent) if (p / CONFIG).is_file()), None)
    if config is None:
        raise UserError(
            f"{folder}: no {CONFIG} in it or above it; give the folder of a run, such as "
            "results/msrvtt/runs/RUN/seed42 ('discovla runs msrvtt/table5' lists them)"
        )
    found = [folder / ADAPTER] if (folder / ADAPTER).is_file() else []
    found = found or sorted(folder.glob(f"seed*/{ADAPTER}"))
    if len(found) > 1:
        names = ", ".join(path.parent.name for path in found)
        raise UserError(f"{folder}: trained with several seeds; choose one of {names}")
    # Whether an adapter belongs there is found out when it is loaded.
    return Source(_placed(read_run_config(config)), found[0].resolve() if found else None)


def plain_clip(name: str, weights: Path | None, config: Path) -> Source:
    """CLIP as it is: an entry of config/backbones.yaml, or other weights in its place."""
    experiments = Experiments.load(folder=config)
    backbone = experiments.backbone(name, "--backbone")
    if weights is not None:
        if not weights.is_file():
            raise UserError(f"--weights: {weights}: no such file")
        backbone |= {"weights": str(weights), "sha256": sha256_file(weights)}
    values = {
        **experiments.defaults["settings"],
        **experiments.methods["zero_shot"]["set"],
        "method": "zero_shot",
        "backbone": name,
    }
    settings = read_settings(values, "config/defaults.yaml")
    content = {
        "schema": 1,
        "run_id": f"zero-shot-{name}",
        "dataset": NO_RUN,
        "settings": settings.to_dict(),
        "backbone": backbone,
        "frames_id": NO_RUN,
        "captions_id": None,
    }
    return Source(_placed(content), None)


def _placed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with whole paths of CLIP's files: searching may start in another folder."""
    backbone = dict(config["backbone"])
    for name, prefix in (("weights", ""), ("tokenizer", ""), ("architecture", LOCAL_PREFIX)):
        value = backbone.get(name)
        if value and value.startswith(prefix) and Path(value.removeprefix(prefix)).exists():
            backbone[name] = prefix + str(Path(value.removeprefix(prefix)).resolve())
    return {**config, "backbone": backbone}


class Encoder:
    """Unit vectors of texts and of the frames of videos; safe to call from several threads."""

    def __init__(self, folder: Path, device: str = "auto", batch: int = 8) -> None:
        """Load what `Source.keep` kept.

        Args:
            folder: of the model.
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            batch: videos or windows at once.
        """
        self._model = load(folder, device=device)
        self._batch, self._lock = batch, threading.Lock()
        self.label = self._model.run.run_id
        self.width = int(self._model.run.backbone.dims.embed)

    def sampling(self, window: float) -> Sampling:
        """How the model wants its frames."""
        settings = self._model.run.settings
        return Sampling(
            frames=settings.frames,
            side=self._model.run.backbone.image_size,
            sampling=settings.sampling,
            candidate_fps=settings.sampling_fps,
            window=window,
        )

    def videos(self, clips: Sequence[Frames]) -> Vectors:
        """(N, D) of clips (F, H, W, 3): what `discovla features` gives for the same frames."""
        with self._lock:
            return self._model.encode_frames(clips, batch_size=self._batch)

    def texts(self, texts: Sequence[str]) -> Vectors:
        """(N, D) of texts; longer ones than the model reads are cut."""
        with self._lock:
            return self._model.encode_texts(texts)
