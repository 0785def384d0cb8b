"""Sound files in the place of others: each reader names what it is and what belongs there."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from discovla.captioning import table as captions
from discovla.data.annotations.base import Clip, read_annotations, to_table, write_annotations
from discovla.data.clips import SCHEMA as CLIPS
from discovla.data.clips import read_clips, write_clips
from discovla.data.frame_file import record_batch, shard_file
from discovla.data.store import FrameStore
from discovla.errors import UserError
from discovla.retrieval.rows import read_rows, write_rows
from discovla.retrieval.stored import read_features, read_texts
from discovla.storage.files import read_record, write_record
from discovla.storage.place import check_place
from discovla.storage.tensors import save_tensors
from discovla.training.checkpoint import adapter_metadata, read_adapter, save_adapter

Said = Mapping[str, Any]
RUN = "results/a/runs/lora-x/seed0"
A = {"dataset": "a", "run_id": "lora-x", "seed": "0", "split": "test", "data_id": "d"}


def annotations(path: Path, said: Said) -> None:
    pairs = [(Clip("c", "train", ("c",)), "a caption")]
    write_annotations(to_table(pairs), path, dataset=said["dataset"], rules={}, sources={})


def clips(path: Path, said: Said) -> None:
    row = dict.fromkeys(CLIPS.names, 1) | {"clip_id": "c", "status": "ok", "path": "", "error": ""}
    write_clips(pd.DataFrame([row], columns=CLIPS.names), path, said["dataset"])


def frames(path: Path, said: Said) -> None:
    metadata = {**said, "frames": 1, "clips": 1, "clip_ids": ["c"]}
    row = {"clip_id": "c", "position": 0, "frame_index": 0, "timestamp": 0.0, "width": 1}
    row |= {"height": 1, "encoding": "raw", "reader": "pyav", "bad_packets": 0, "data": b"rgb"}
    with shard_file(path, metadata) as writer:
        writer.write_batch(record_batch([row]))


def caption_table(path: Path, said: Said) -> None:
    captions.write_shard([], path, {"kind": "guided", **said})


def adapter(path: Path, said: Said) -> None:
    own = {"run_id": "lora-x", "seed": 0, "selection": "last", **said}
    metadata = adapter_metadata(method="lora", step=1, data_id="d", excluded=[], **own)
    save_adapter(path, {"x": torch.zeros(2)}, metadata)


def features(path: Path, said: Said) -> None:
    one = torch.ones(1, 1)
    tensors = {"text": one, "video": one.clone(), "truth": torch.zeros(1, dtype=torch.int64)}
    metadata = {**A, "selection": "last", **said}
    save_tensors(path, tensors | {"logit_scale": torch.tensor(1.0)}, metadata)
    rows = [{"kind": kind, "row": 0, "id": "c"} for kind in ("text", "video")]
    write_rows(path, pd.DataFrame(rows), metadata)


def read_both(path: Path) -> None:
    read_rows(read_features(path))


def record(path: Path, said: Said) -> None:
    write_record(path, {"schema": 1, **said})


METRICS = {**A, "post": {"name": "none"}, "selection": {"rule": "last", "step": 1}}
BEST = METRICS | {"selection": {"rule": "val_best", "step": 1}}
ROW = {"table": "table5", "row": "b1"}
CASES: list[tuple[str, Callable[[Path, Said], None], Callable[[Path], Any], Said, str, Any]] = [
    ("resources/a/annotations.parquet", annotations, read_annotations, A, "dataset", "b"),
    ("resources/a/clips.parquet", clips, read_clips, A, "dataset", "b"),
    (
        *(f"resources/a/frames/{'f' * 10}/1-of-2.arrow", frames, lambda p: FrameStore([p])),
        *({"frames_id": "f" * 10, "shard": "1-of-2"}, "frames_id", "e" * 10),
    ),
    (
        *(f"results/a/captions/{'c' * 10}.parquet", caption_table, captions.read_metadata),
        *({"captions_id": "c" * 10}, "captions_id", "e" * 10),
    ),
    (
        *(f"results/a/captions/{'c' * 10}.parquet", caption_table, captions.read_metadata),
        *({"captions_id": "c" * 10}, "shard", "1-of-2"),
    ),
    (
        *(f"results/a/captions/{'c' * 10}/1-of-2.parquet", caption_table, captions.read_metadata),
        *({"captions_id": "c" * 10, "shard": "1-of-2"}, "captions_id", "e" * 10),
    ),
    (
        *(f"results/a/captions/{'c' * 10}/1-of-2.parquet", caption_table, captions.read_metadata),
        *({"captions_id": "c" * 10, "shard": "1-of-2"}, "shard", "2-of-2"),
    ),
    ("results/a/runs/lora-x/config.json", record, read_record, A, "run_id", "lora-y"),
    ("results/a/check.json", record, read_record, A, "dataset", "b"),
    (f"{RUN}/adapter.safetensors", adapter, read_adapter, {}, "run_id", "lora-y"),
    (f"{RUN}/adapter.safetensors", adapter, read_adapter, {}, "seed", 1),
    (f"{RUN}/adapter.safetensors", adapter, read_adapter, {}, "selection", "epoch1"),
    (
        *(f"{RUN}/checkpoints/epoch1.safetensors", adapter, read_adapter),
        *({"selection": "epoch1"}, "selection", "epoch2"),
    ),
    (f"{RUN}/features.test.safetensors", features, read_both, {}, "run_id", "lora-y"),
    (f"{RUN}/features.test.safetensors", features, read_both, {}, "seed", "1"),
    (f"{RUN}/features.test.safetensors", features, read_both, {}, "split", "val"),
    (f"{RUN}/features.test.safetensors", features, read_both, {}, "selection", "epoch1"),
    (f"{RUN}/features.bank.safetensors", features, read_texts, {"split": "bank"}, "split", "test"),
    (f"{RUN}/epochs/last.test.safetensors", features, read_both, {}, "selection", "epoch1"),
    (f"{RUN}/metrics.none.json", record, read_record, METRICS, "run_id", "lora-y"),
    (f"{RUN}/metrics.none.json", record, read_record, METRICS, "seed", 1),
    (f"{RUN}/metrics.none.json", record, read_record, METRICS, "post", {"name": "dsl"}),
    (f"{RUN}/metrics.none.json", record, read_record, METRICS, "split", "val"),
    (f"{RUN}/metrics.none.json", record, read_record, METRICS, "selection", BEST["selection"]),
    (f"{RUN}/metrics.none.val_best.json", record, read_record, BEST, "selection", {"rule": "last"}),
    (f"{RUN}/cost.json", record, read_record, A, "seed", "1"),
    ("results/a/table5/b1.json", record, read_record, ROW, "row", "b2"),
]


@pytest.mark.parametrize(
    ("place", "write", "read", "said", "key", "other"),
    CASES,
    ids=[f"{Path(case[0]).name}-{case[4]}" for case in CASES],
)
def test_a_sound_file_of_another_place_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    write: Callable[[Path, Said], None],
    read: Callable[[Path], Any],
    said: Said,
    key: str,
    other: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(place)
    path.parent.mkdir(parents=True)
    write(path, said)
    read(path)
    for made in path.parent.iterdir():
        made.unlink()
    write(path, {**said, key: other})
    name = next(iter(other.values())) if isinstance(other, dict) else other
    with pytest.raises(UserError) as refused:
        read(path)
    text = str(refused.value)
    assert text.startswith(f"{place}: ")
    assert f"its {key} is {name}," in text
    assert "emove it and run again" in text


def test_elsewhere_a_file_may_be_anything(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "discovla" / "seed3" / "features.test.safetensors"
    path.parent.mkdir(parents=True)
    features(path, {})
    np.testing.assert_array_equal(read_features(path).tensors["text"], [[1.0]])


def test_what_a_file_does_not_say_is_not_held_against_it() -> None:
    check_place(f"{RUN}/metrics.none.json", {"run_id": "lora-x", "selection": {"rule": None}})
    check_place(f"{RUN}/features.bank.safetensors", {})


def test_a_copy_of_another_seed_is_found_by_verify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from discovla.cli import main

    monkeypatch.chdir(tmp_path)
    here, there = Path(RUN), Path(RUN).with_name("seed1")
    for folder in (here, there):
        folder.mkdir(parents=True)
        adapter(folder / "adapter.safetensors", {"seed": folder.name[4:]})
    shutil.copy(here / "adapter.safetensors", there / "adapter.safetensors")
    names = [str(folder / "adapter.safetensors") for folder in (here, there)]
    assert main(["verify", *names]) == 3
    said = capsys.readouterr()
    assert said.out.startswith(names[0])
    assert f"{names[1]}: not the file of this place, though sound: its seed is 0, 1" in said.err
