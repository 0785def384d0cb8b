"""Features on disk against the model called by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file

from discovla.cli import main
from discovla.data.annotations.base import read_annotations, read_metadata
from discovla.data.augment import prepare
from discovla.data.store import FrameStore
from discovla.errors import UserError
from discovla.retrieval.evaluate import evaluate_features
from discovla.retrieval.features import extract_features
from discovla.retrieval.rows import read_rows
from discovla.retrieval.stored import read_features
from discovla.storage.files import content_hash
from discovla.training.checkpoint import load_trained
from discovla.training.loop import train
from tests.training import world as worlds
from tests.training.world import TEST, World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return worlds.build(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def adapter(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    return train(world.config, output_dir=folder, **world.training())


def extract(world: World, adapter: Path | None, output: Path, split: str = "test", **k: object):
    frames = None if split == "bank" else world.frames
    options = {"seed": 1, "device": "cpu", **k}
    return extract_features(
        world.config_path, adapter, split, world.annotations, frames, output, **options
    )


def ids_of(output: Path, kind: str) -> list[str]:
    table = pd.read_parquet(output.with_suffix(".parquet"))
    rows = table[table["kind"] == kind]
    assert rows["row"].tolist() == list(range(len(rows)))
    return rows["id"].tolist()


def naive(world: World, adapter: Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """One caption and one video at a time."""
    run, _ = load_trained(world.config_path, adapter, "cpu")
    rows = read_annotations(world.annotations)
    rows = rows[rows["split"] == split]
    store = FrameStore(world.frames)
    texts, videos = [], []
    with torch.inference_mode():
        for text in rows["caption"]:
            ids, mask = run.backbone.tokenize([text], run.settings.words)
            texts.append(F.normalize(run.retriever.encode_text(ids, mask)[0], dim=0))
        for clip in dict.fromkeys(rows["clip_id"]):
            video = torch.from_numpy(prepare(store.clip(clip), run.backbone.image_size))
            frames = run.retriever.encode_video(video[None]).frames[0]
            videos.append(F.normalize(F.normalize(frames, dim=-1).mean(0), dim=0))
    return torch.stack(texts), torch.stack(videos)


def test_features_truth_and_ids(world: World, adapter: Path, tmp_path: Path) -> None:
    output = tmp_path / "features.test.safetensors"
    metadata = extract(world, adapter, output)
    found = load_file(output)
    texts, videos = naive(world, adapter, "test")
    torch.testing.assert_close(found["text"], texts, atol=1e-5, rtol=0)
    torch.testing.assert_close(found["video"], videos, atol=1e-5, rtol=0)
    for name in ("text", "video"):
        assert found[name].dtype == torch.float32
        assert found[name].norm(dim=-1).tolist() == pytest.approx([1] * len(found[name]))
    assert found["truth"].tolist() == [0, 1, 2, 3, 4, 5, 5]
    assert found["truth"].dtype == torch.int64
    assert found["logit_scale"].shape == ()
    assert found["logit_scale"].item() == pytest.approx(1 / 0.07, rel=1e-4)
    assert ids_of(output, "video") == TEST
    assert ids_of(output, "text") == [*(f"{clip}#0" for clip in TEST), f"{TEST[-1]}#1"]
    assert read_features(output).metadata == metadata
    assert read_rows(read_features(output))["id"].tolist() == [
        *ids_of(output, "text"),
        *ids_of(output, "video"),
    ]
    data_id = read_metadata(world.annotations)["data_id"]
    trained = sum(t.numel() for t in load_file(adapter).values())
    assert (
        metadata | {"reader": "pyav", "stored": "raw"}
        == metadata
        == {
            **{"schema": "2", "run_id": worlds.RUN_ID, "dataset": "tiny", "seed": "1"},
            **{"split": "test", "annotations_id": data_id, "data_id": data_id, "excluded": "[]"},
            **{"dtype": "fp32", "parameters": str(trained), "reader": "pyav", "stored": "raw"},
            **{"step": "10", "selection": "last"},
            **{"train_data_id": data_id, "train_excluded": "[]"},
        }
    )


@pytest.mark.parametrize("size", [1, 4])
def test_batch_size_changes_only_last_digits(
    world: World, adapter: Path, tmp_path: Path, size: int
) -> None:
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    extract(world, adapter, first)
    extract(world, adapter, second, batch_size=size)
    one, other = load_file(first), load_file(second)
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=2e-6, rtol=0)


def test_equal_captions_have_equal_features(world: World, adapter: Path, tmp_path: Path) -> None:
    rows = read_annotations(world.annotations)
    captions = rows[rows["split"] == "test"]["caption"].tolist()
    assert captions[4] == captions[6]
    extract(world, adapter, tmp_path / "a.safetensors", batch_size=1)
    text = load_file(tmp_path / "a.safetensors")["text"]
    assert torch.equal(text[4], text[6])


def test_bank_is_every_training_caption(world: World, adapter: Path, tmp_path: Path) -> None:
    output = tmp_path / "features.bank.safetensors"
    metadata = extract(world, adapter, output, "bank")
    found = load_file(output)
    assert set(found) == {"text", "logit_scale"}
    torch.testing.assert_close(found["text"], naive(world, adapter, "train")[0], atol=1e-5, rtol=0)
    assert ids_of(output, "text") == [f"{clip}#{n}" for clip in worlds.TRAIN for n in (0, 1)]
    assert metadata["split"] == "bank"
    assert "reader" not in metadata


def test_metrics_read_what_is_written(world: World, adapter: Path, tmp_path: Path) -> None:
    test, bank = tmp_path / "test.safetensors", tmp_path / "bank.safetensors"
    extract(world, adapter, test)
    extract(world, adapter, bank, "bank")
    metrics = evaluate_features(test, bank, post="qbnorm")
    assert metrics["n_queries_t2v"] == 7
    assert metrics["parameters"] > 0
    assert metrics["selection"] == {"rule": "last", "step": 10}


def test_failed_clips(tmp_path: Path) -> None:
    gone = TEST[5]
    world = worlds.build(tmp_path / "world", failed=(gone,))
    adapter = train(world.config, output_dir=tmp_path / "run", **world.training())
    output = tmp_path / "features.test.safetensors"
    with pytest.raises(UserError, match="1 of 6 clips have no frames"):
        extract(world, adapter, output)
    assert not output.exists()
    metadata = extract(world, adapter, output, allow_missing=True)
    found = load_file(output)
    assert found["truth"].tolist() == [0, 1, 2, 3, 4]
    assert found["video"].shape[0] == found["text"].shape[0] == 5
    assert ids_of(output, "text") == [f"{clip}#0" for clip in TEST[:5]]
    assert json.loads(metadata["excluded"]) == [gone]
    known = read_metadata(world.annotations)["data_id"]
    assert metadata["annotations_id"] == known
    assert metadata["data_id"] == content_hash({"annotations": known, "excluded": [gone]}) != known


def test_zero_shot_needs_no_adapter(world: World, tmp_path: Path) -> None:
    zero = world.with_settings(tmp_path / "zero", method="zero_shot", alpha=0, beta=0)
    output = tmp_path / "features.test.safetensors"
    arguments = [
        *("features", "--config", str(zero.config_path), "--split", "test", "--seed", "1"),
        *("--annotations", str(zero.annotations), "--frames", str(zero.frames)),
        *("--device", "cpu", "--output", str(output)),
    ]
    assert main(arguments) == 0
    with safe_open(output, "pt") as file:
        metadata = file.metadata()
    assert metadata["parameters"] == "0"
    assert "step" not in metadata
    assert evaluate_features(output, None)["selection"]["step"] is None


def test_refusals(world: World, adapter: Path, tmp_path: Path) -> None:
    output = tmp_path / "features.test.safetensors"
    with pytest.raises(UserError, match="trained with seed 1"):
        extract(world, adapter, output, seed=2)
    with pytest.raises(UserError, match="no split 'val'"):
        extract(world, adapter, output, "val")
    with pytest.raises(UserError, match="allowed: test, val, bank"):
        extract(world, adapter, output, "train")
    with pytest.raises(UserError, match="give --frames"):
        extract_features(
            world.config_path, adapter, "test", world.annotations, None, output, seed=1
        )
    with pytest.raises(UserError, match="batch size"):
        extract(world, adapter, output, batch_size=0)
    assert list(tmp_path.iterdir()) == []
