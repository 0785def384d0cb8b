"""A run's files at their smallest: annotations, frames, pseudo captions, config, random CLIP."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from discovla.captioning import table as captions
from discovla.data.annotations.base import Clip, to_table, write_annotations
from discovla.data.encoding import encode
from discovla.data.frame_file import record_batch, shard_file
from discovla.data.shards import shard_of
from discovla.models.backbone import Tokenizer
from tests.models import tiny

FRAMES_ID, CAPTIONS_ID, RUN_ID = "f" * 10, "c" * 10, "discovla-tiny-0123456789"
FRAMES = 3
SHARDS = 2
HOSTILE = "-../ü 'x\"; $(touch pwned)"
"""Ids are data: this one is the first training clip and the first test clip."""
TRAIN = [f"train {HOSTILE}", *(f"train{i}" for i in range(1, 10))]
TEST = [f"test {HOSTILE}", *(f"test{i}" for i in range(1, 6))]
WORDS = ["red", "blue", "cat", "dog", "runs", "sleeps", "!", "slowly"]


@dataclass(frozen=True)
class World:
    """Paths of everything that `train` and `extract_features` read."""

    folder: Path
    config: dict[str, Any]

    @property
    def config_path(self) -> Path:
        return self.folder / "config.json"

    @property
    def annotations(self) -> Path:
        return self.folder / "annotations.parquet"

    @property
    def frames(self) -> Path:
        return self.folder / "frames"

    @property
    def captions(self) -> Path:
        return self.folder / "captions.parquet"

    def with_settings(self, folder: Path, **changes: Any) -> World:
        """The same data for another run."""
        method = changes.pop("method", self.config["settings"]["method"])
        run_id = changes.pop("run_id", f"{method}-tiny-9999999999")
        settings = {**self.config["settings"], "method": method, **changes}
        config = {**self.config, "settings": settings, "run_id": run_id}
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("annotations.parquet", "frames", "captions.parquet"):
            (folder / name).symlink_to(self.folder / name)
        made = replace(self, folder=folder, config=config)
        made.config_path.write_text(json.dumps(config))
        return made

    def training(self) -> dict[str, Any]:
        """Arguments of `train`, without its folder."""
        return {
            "seed": 1,
            "annotations": self.annotations,
            "frames_dir": self.frames,
            "captions": self.captions,
            "device": "cpu",
        }


def caption(rng: np.random.Generator) -> str:
    return " ".join(rng.choice(WORDS, size=rng.integers(1, 6)))


def build(folder: Path, failed: tuple[str, ...] = ()) -> World:
    """10 training clips with 2 captions each, 6 test clips (the last with a second caption)."""
    rng = np.random.default_rng(0)
    clips = [Clip(c, "train", ("stem",)) for c in TRAIN] + [Clip(c, "test", ("s",)) for c in TEST]
    pairs = [(clip, caption(rng)) for clip in clips for _ in range(1 + (clip.split == "train"))]
    pairs.append((clips[-1], pairs[-2][1]))  # the same words as of another clip
    annotations = to_table(pairs)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "annotations.parquet"
    write_annotations(annotations, path, dataset="tiny", rules={}, sources={})
    write_frames(folder / "frames", rng, failed)
    write_captions(folder, annotations, rng, failed)
    world = World(folder, {**run_config(folder)})
    world.config_path.write_text(json.dumps(world.config))
    return world


def write_frames(folder: Path, rng: np.random.Generator, failed: tuple[str, ...]) -> None:
    folder.mkdir()
    pixels = {c: rng.integers(0, 256, (FRAMES, 18, 20, 3), np.uint8) for c in [*TRAIN, *TEST]}
    for shard in range(1, SHARDS + 1):
        here = [c for c in pixels if shard_of(c, SHARDS) == shard]
        metadata = {
            **{"frames_id": FRAMES_ID, "shard": f"{shard}-of-{SHARDS}", "frames": FRAMES},
            **{"clips": len(here), "clip_ids": here, "reader": "auto"},
            **{"encoding": "raw", "short_side": None},
        }
        with shard_file(folder / f"{shard}-of-{SHARDS}.arrow", metadata) as writer:
            for clip in sorted(here, key=failed.__contains__):
                rows = [
                    {"clip_id": clip, "position": 0, "error": "damaged"}
                    if clip in failed
                    else {
                        **{"clip_id": clip, "position": n, "frame_index": n, "timestamp": n / 2},
                        **{"width": 20, "height": 18, "encoding": "raw", "reader": "pyav"},
                        **{"data": encode(frame, "raw", 95), "bad_packets": 0},
                    }
                    for n, frame in enumerate(pixels[clip][: 1 if clip in failed else None])
                ]
                writer.write_batch(record_batch(rows))


def write_captions(
    folder: Path, annotations: Any, rng: np.random.Generator, failed: tuple[str, ...]
) -> None:
    train = annotations[annotations["split"] == "train"]
    rows = [
        {
            **{"clip_id": row.clip_id, "caption_id": row.caption_id, "position": n},
            **{"frame_index": n, "timestamp": n / 2, "video_caption": row.caption},
            **{"pseudo_caption": caption(rng), "n_tokens": 3, "finish_reason": "stop"},
            "status": "ok",
        }
        for row in train.itertuples()
        if row.clip_id not in failed
        for n in range(FRAMES)
    ]
    metadata = {
        **{"captions_id": CAPTIONS_ID, "frames_id": FRAMES_ID, "frames_per_clip": FRAMES},
        **{"excluded": [c for c in failed if c in TRAIN], "absent": []},
    }
    captions.write_shard(rows, folder / "1-of-1.parquet", metadata)
    output = folder / "captions.parquet"
    captions.merge([folder / "1-of-1.parquet"], folder / "annotations.parquet", CAPTIONS_ID, output)


def run_config(folder: Path) -> dict[str, Any]:
    bpe = folder / "bpe.txt.gz"
    with gzip.open(bpe, "wt", encoding="utf-8") as handle:
        handle.write("#version: 0.2\nr e\nc a\nd o\nr u")
    architecture = folder / "clip"
    architecture.mkdir()
    text = {**tiny.CONFIG["text_cfg"], "vocab_size": Tokenizer(bpe).vocab_size}
    model = {"model_cfg": {**tiny.CONFIG, "text_cfg": text}}
    (architecture / "open_clip_config.json").write_text(json.dumps(model))
    return {
        "schema": 1,
        "run_id": RUN_ID,
        "dataset": "tiny",
        "settings": tiny.settings(epochs=2, augment="randaugment", lr=1e-2).to_dict(),
        "backbone": {
            **{"name": "tiny", "architecture": f"local-dir:{architecture}", "weights": None},
            **{"sha256": None, "tokenizer": str(bpe)},
        },
        "trains": True,
        "frames_id": FRAMES_ID,
        "captions_id": CAPTIONS_ID,
    }
