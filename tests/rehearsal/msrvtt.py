"""A self-made cut of MSRVTT: 60 clips, its own file names and schema."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from discovla.demo.world import draw_clip, encode_video
from discovla.files import atomic_write, write_json

N_TRAIN, N_TEST, CAPTIONS = 40, 20, 3
BROKEN = {"video5": "half of the file", "video9995": "an empty file"}


def enlarge(frames: np.ndarray) -> np.ndarray:
    """64 x 64 frames to MSRVTT's 320 x 240, by repeating pixels and cropping."""
    return np.repeat(np.repeat(frames, 5, axis=1), 5, axis=2)[:, 40:280]


def write_dataset(root: Path) -> None:
    """Write annotation files and videos below `root`."""
    train = [(f"video{i}", draw_clip("train", i)) for i in range(N_TRAIN)]
    test = [(f"video{9980 + i}", draw_clip("test", i)) for i in range(N_TEST)]
    write_annotations(root, train, test)
    for name, clip in [*train, *test]:
        path = root / "videos" / "all" / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        encode_video(path, enlarge(clip.frames()))
    break_files(root / "videos" / "all")


def write_annotations(root: Path, train: list[Any], test: list[Any]) -> None:
    """The three files of CLIP4Clip's archive, in their own schema."""
    write_csv(root / "MSRVTT_train.9k.csv", ["video_id"], [[name] for name, _ in train])
    head = ["key", "vid_key", "video_id", "sentence"]
    rows = [
        [f"ret{i}", f"msr{name.removeprefix('video')}", name, clip.captions[0]]
        for i, (name, clip) in enumerate(test)
    ]
    write_csv(root / "MSRVTT_JSFUSION_test.csv", head, rows)
    sentences = [
        {"caption": caption, "video_id": name, "sen_id": 20 * i + j}
        for i, (name, clip) in enumerate([*train, *test])
        for j, caption in enumerate((clip.captions * CAPTIONS)[:CAPTIONS])
    ]
    videos = [
        {
            "category": 0,
            "url": "",
            "video_id": name,
            "start time": 0.0,
            "end time": 3.0,
            "split": "train",
            "id": i,
        }
        for i, (name, _) in enumerate([*train, *test])
    ]
    write_json(
        root / "MSRVTT_data.json",
        {"info": {"year": "2016"}, "videos": videos, "sentences": sentences},
    )


def write_csv(path: Path, head: list[str], rows: list[list[str]]) -> None:
    """Write one comma-separated file."""
    with atomic_write(path) as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerows([head, *rows])


def break_files(folder: Path) -> None:
    """Damage the clips of `BROKEN`: one cut in half (its index is at the end), one empty."""
    cut, empty = (folder / f"{name}.mp4" for name in BROKEN)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    empty.write_bytes(b"")


def configure(folder: Path, digest: str) -> None:
    """Point config/ at the cut, the random weights, and a training of a few steps."""
    from tests.workflow.run import edit

    def dataset(content: dict[str, Any]) -> None:
        content["expected"] = {
            "train": {"clips": N_TRAIN, "captions": N_TRAIN * CAPTIONS},
            "test": {"clips": N_TEST, "captions": N_TEST},
        }
        content["set"] = {"batch_size": 4, "max_steps": 2}
        content["shards"] = 2
        content["device"] = "cpu"

    def config(content: dict[str, Any]) -> None:
        content["weights"] = {"vit-b32": "weights/ViT-B-32.pt"}
        content["captioner_path"] = {"llava-next": "weights/llava-next"}
        content["quote"] = {"table1": b16_rows(folder)}
        content["workers"] = 0

    def captioners(content: dict[str, Any]) -> None:
        content["llava-next"] |= {"dtype": "fp32", "max_new_tokens": 8, "batch_size": 64}

    edit(folder / "config" / "datasets" / "msrvtt.yaml", dataset)
    edit(folder / "config" / "config.yaml", config)
    edit(folder / "config" / "captioners.yaml", captioners)
    edit(
        folder / "config" / "backbones.yaml",
        lambda content: content["vit-b32"].update(sha256=digest),
    )


def b16_rows(folder: Path) -> list[str]:
    """Rows of Table 1 on the second backbone: quoted here, to spare a second set of weights."""
    from discovla.experiments import Experiments

    rows = Experiments.load(folder=folder / "config").rows("msrvtt", "table1")
    return [row.row for row in rows if row.backbone == "vit-b16"]


def describe(table: Path) -> str:
    """The measured rows of the finished table, for the screen."""
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    measured = [row for row in rows if row["run_id"]]
    lines = [
        f"{row['label']:<24} {row['run_id']:<32} n_test {row['n_test']}, "
        f"R@1 {float(row['t2v_R@1']):.1f}, captions {row['captions'] or '-'}"
        for row in measured
    ]
    quoted = len(rows) - len(measured)
    return json.dumps({"measured": len(measured), "quoted": quoted}) + "\n" + "\n".join(lines)
