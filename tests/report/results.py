"""A dataset's folders as the workflow leaves them: small, made up, with texts like HTML."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from discovla.captioning import table as caption_table
from discovla.captioning.run import caption_shard
from discovla.config import load_yaml
from discovla.data.annotations.base import Clip, to_table, write_annotations
from discovla.data.check import check_dataset
from discovla.data.frame_file import record_batch, shard_file
from discovla.experiments import Experiments, Row
from discovla.report.figures import build_figure, write_figure
from discovla.report.rank_changes import build_rank_changes, write_rank_changes
from discovla.report.tables import build_table, write_table
from discovla.retrieval.evaluate import evaluate_features
from discovla.retrieval.rows import write_rows
from discovla.storage.files import write_json
from discovla.storage.tensors import save_tensors
from tests.captioning.conftest import FakeCaptioner
from tests.data.checks.world import clip as entry
from tests.data.checks.world import dataset as write_dataset
from tests.report.test_summary import HEAD

DATASET = "msrvtt"
HOSTILE = (
    '<img src=x onerror="document.title=\'hacked\'"> it\'s a "dog" & </script> <b>bold</b> '
    "\u202e{{1}}"
)
SEEDS = (0, 1)
CLIPS = 14
WIDTH = 6


@dataclass(frozen=True)
class World:
    """Where everything is."""

    folder: Path
    experiments: Experiments

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def resources(self) -> Path:
        return self.folder / "resources"

    @property
    def annotations(self) -> Path:
        return self.resources / DATASET / "annotations.parquet"

    @property
    def frames(self) -> Path:
        return self.resources / DATASET / "frames" / self.run("discovla").frames_id

    def run(self, row: str, table: str = "table5") -> Any:
        return self.experiments.row(DATASET, table, row).run

    def seed_folder(self, row: str, seed: int, table: str = "table5") -> Path:
        return self.results / DATASET / "runs" / self.run(row, table).run_id / f"seed{seed}"


def experiments() -> Experiments:
    """The project's own, with two seeds and one row that is only quoted."""
    changes = {"seeds": list(SEEDS), "quote": {"table5": ["b1"]}}
    return Experiments.load({**load_yaml("config/config.yaml"), **changes})


def build(folder: Path) -> World:
    """Table 5, Figure 7, one comparison, captions, curves, benchmarks and the data check."""
    world = World(folder, experiments())
    _annotations(world)
    _frames(world)
    _captions(world)
    place = world.results / DATASET
    for name in ("table5", "figure7"):
        for row in world.experiments.rows(DATASET, name):
            _measured(world, row)
    table = build_table(world.experiments, DATASET, "table5", world.results)
    write_table(table, **{kind: str(place / f"table5.{kind}") for kind in ("csv", "md", "tex")})
    figure = build_figure(world.experiments, DATASET, "figure7", world.results)
    pictures = [str(place / f"figure7.{kind}") for kind in ("svg", "png")]
    write_figure(figure, csv=str(place / "figure7.csv"), pictures=pictures)
    changes = rank_changes(world)
    compared = place / "compare" / "table5" / "lora..discovla"
    write_rank_changes(changes, f"{compared}.csv", [f"{compared}.svg"])
    root = write_dataset(folder / "data", entry("a"), entry("b", "test", [HOSTILE]))
    write_json(place / "check.json", check_dataset(DATASET, "demo", root, rules={}, expected={}))
    for stage, seconds in (("train/a", 30), ("features/a", 4000)):
        path = place / "benchmarks" / f"{stage}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEAD + f"{seconds}\t0\t500\t0\t0\t0\t0\t0\t90\t{seconds * 2}\n")
    return world


def rank_changes(world: World, before: str = "lora", after: str = "discovla") -> Any:
    names = (DATASET, "table5", before, after)
    places = {"results": world.results, "resources": world.resources}
    return build_rank_changes(world.experiments, *names, **places)


def _annotations(world: World) -> None:
    texts = [HOSTILE, *(f"a dog runs number {n}" for n in range(1, CLIPS))]
    pairs = [(Clip(f"test{n}", "test", (f"test{n}",)), text) for n, text in enumerate(texts)]
    pairs += [(Clip(f"train{n}", "train", (f"train{n}",)), HOSTILE) for n in range(2)]
    world.annotations.parent.mkdir(parents=True)
    write_annotations(to_table(pairs), world.annotations, dataset=DATASET, rules={}, sources={})


def _frames(world: World) -> None:
    clip_ids = [*(f"test{n}" for n in range(CLIPS)), "train0", "train1"]
    metadata = {"frames_id": world.frames.name, "frames": 12, "shard": "1-of-1"}
    metadata |= {"encoding": "raw", "short_side": None}
    metadata |= {"clips": len(clip_ids), "clip_ids": clip_ids}
    with shard_file(world.frames / "1-of-1.arrow", metadata) as writer:
        for number, clip_id in enumerate(clip_ids):
            writer.write_batch(record_batch(_rows(clip_id, number)))


def _rows(clip_id: str, number: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(number)
    frames = rng.integers(0, 256, (12, 3, 4, 3), np.uint8).repeat(12, 1).repeat(12, 2)
    shape = {"width": 48, "height": 36, "encoding": "raw", "reader": "test", "bad_packets": 0}
    return [
        {"clip_id": clip_id, "position": n, "frame_index": n, "timestamp": n / 2, **shape}
        | {"data": frame.tobytes()}
        for n, frame in enumerate(frames)
    ]


def _captions(world: World) -> None:
    folder, captions_id = world.results / DATASET / "captions", world.run("discovla").captions_id
    shard = folder / captions_id / "1-of-1.parquet"
    captioner = FakeCaptioner(lambda image, prompt, again: f"{HOSTILE} {image.mean():.1f}")
    frames = world.frames / "1-of-1.arrow"
    caption_shard(frames, world.annotations, "guided", captioner, shard, captions_id=captions_id)
    caption_table.merge([shard], world.annotations, captions_id, folder / f"{captions_id}.parquet")


def _measured(world: World, row: Row) -> None:
    """Everything of one row: settings, features, metrics and curve of each seed."""
    if row.run is None:
        return
    for path in map(Path, world.experiments.metrics_files(row, str(world.results))):
        seed = int(path.parent.name.removeprefix("seed"))
        write_json(path.parents[1] / "config.json", row.run.config())
        features = path.parent / "features.test.safetensors"
        write_features(features, row.run.run_id, seed)
        write_json(path, evaluate_features(features))
        if row.run.trains:
            _curve(path.parent / "curve.csv")


def write_features(path: Path, run_id: str, seed: int, **changes: str) -> None:
    """Unit vectors whose pairs lie near each other, and the table of their ids."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, *run_id.encode()])
    video = rng.normal(size=(CLIPS, WIDTH))
    text = video + rng.normal(size=video.shape)
    video, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (video, text))
    tensors = {"text": text.astype(np.float32), "video": video.astype(np.float32)}
    tensors |= {"truth": np.arange(CLIPS), "logit_scale": np.array(100.0, np.float32)}
    metadata = {"run_id": run_id, "dataset": DATASET, "seed": str(seed)}
    metadata |= {"split": "test", "data_id": "a" * 10, "selection": "last", "step": "9"}
    metadata |= {"parameters": "491520", "dtype": "fp32", **changes}
    save_tensors(path, {n: torch.from_numpy(t) for n, t in tensors.items()}, metadata)
    ids = {
        "text": [f"test{n}#0" for n in range(CLIPS)],
        "video": [f"test{n}" for n in range(CLIPS)],
    }
    sides = [pd.DataFrame({"kind": k, "row": range(CLIPS), "id": v}) for k, v in ids.items()]
    write_rows(path, pd.concat(sides), metadata)


def _curve(path: Path) -> None:
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["step", "lr", "loss", "loss_vid", "loss_img", "grad_norm"])
        writer.writerows(
            [step, 1e-3 / step, 9 / step, 6 / step, 3 / step, 1] for step in range(1, 9)
        )
