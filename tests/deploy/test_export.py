"""Exported runs load where nothing of this machine is, with the same features."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch

import discovla
from discovla.cli import main
from discovla.deploy.export import export, make_plain
from discovla.deploy.model_card import LOADING
from discovla.errors import UserError
from discovla.methods import METHODS
from discovla.storage.files import write_json
from discovla.training.loop import train
from tests.data.videos import write_video
from tests.methods import every
from tests.report.test_tables import metrics
from tests.training import world as worlds
from tests.training.world import World

TEXTS = ["red cat runs", "blue dog !", "slowly"]
PLAIN = ("zero_shot", "full", "lora")


def made(base: World, folder: Path, method: str) -> Path:
    """A run of a method as the workflow lays it out."""
    pseudo = {} if method == "discovla" else {"alpha": 0.0, "beta": 0.0}
    world = base.with_settings(folder, method=method, max_steps=4, **pseudo)
    if method == "zero_shot":
        (folder / "seed1").mkdir()
    else:
        train(world.config, output_dir=folder / "seed1", **world.training())
    return folder / "seed1"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = worlds.build(tmp_path_factory.mktemp("world"))
    methods = (*PLAIN, "discovla")
    return {m: made(base, tmp_path_factory.mktemp(m) / "run", m) for m in methods}


@pytest.fixture
def frames() -> torch.Tensor:
    return torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("method", [*PLAIN, "discovla"])
def test_a_folder_loads_where_the_run_is_not(
    runs: dict[str, Path], method: str, frames: torch.Tensor, tmp_path: Path
) -> None:
    world = worlds.build(tmp_path / "world")
    run = made(world, tmp_path / "run", method)
    before = discovla.load(run, device="cpu")
    assert main(["export", str(run), "--output", str(tmp_path / "made")]) == 0
    (tmp_path / "made").rename(tmp_path / "moved")
    for name in ("world", "run"):
        shutil.rmtree(tmp_path / name)
    after = discovla.load(tmp_path / "moved", device="cpu")
    np.testing.assert_array_equal(after.encode_texts(TEXTS), before.encode_texts(TEXTS))
    with torch.inference_mode():
        one, other = (m.retriever.encode_video(frames[None]).pooled for m in (before, after))
    assert torch.equal(one, other)
    assert after.run.run_id == before.run.run_id
    config = (tmp_path / "moved" / "config.json").read_text()
    assert str(tmp_path) not in config


@pytest.mark.parametrize("method", PLAIN)
def test_open_clip_gives_the_same_features(
    runs: dict[str, Path], method: str, frames: torch.Tensor, tmp_path: Path
) -> None:
    export(runs[method], tmp_path / "plain", "open_clip")
    ours = discovla.load(runs[method], device="cpu")
    theirs, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}/plain")
    theirs.eval()
    ids, mask = ours.run.backbone.tokenize(TEXTS, ours.run.settings.words)
    padded = torch.zeros(len(TEXTS), theirs.context_length, dtype=torch.long)
    padded[:, : ids.shape[1]] = ids
    with torch.inference_mode():
        video = ours.retriever.encode_video(frames[None]).frames[0]
        torch.testing.assert_close(theirs.encode_image(frames), video, atol=2e-5, rtol=1e-4)
        text = ours.retriever.encode_text(ids, mask)
        torch.testing.assert_close(theirs.encode_text(padded), text, atol=2e-5, rtol=1e-4)
    assert float(theirs.logit_scale.exp().detach()) == pytest.approx(ours.logit_scale)
    assert tuple(preprocess.transforms[-1].mean) == ours.run.backbone.mean
    tokenizer = open_clip.SimpleTokenizer(str(tmp_path / "plain" / "bpe.txt.gz"))
    encoded = tokenizer(TEXTS, context_length=theirs.context_length)
    assert torch.equal(encoded, padded)


def test_the_trained_part_was_large_enough_to_matter(
    runs: dict[str, Path], frames: torch.Tensor
) -> None:
    plain, lora = (discovla.load(runs[m], device="cpu") for m in ("zero_shot", "lora"))
    assert np.abs(plain.encode_texts(TEXTS) - lora.encode_texts(TEXTS)).max() > 1e-3


def test_attention_that_open_clip_has_not_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"discovla does not fit .*\(attend\), .*open_clip has no"):
        export(runs["discovla"], tmp_path / "plain", "open_clip")
    assert not (tmp_path / "plain").exists()


@pytest.mark.parametrize("method", sorted(set(METHODS) - set(PLAIN)))
def test_every_other_method_is_refused_by_open_clip(method: str) -> None:
    with pytest.raises(UserError, match="Export it with --format discovla"):
        make_plain(every.model(method))


def test_the_card_has_the_numbers_and_where_they_are_from(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    seed = tmp_path / "run" / "seed1"
    shutil.copytree(runs["lora"].parent, seed.parent)
    found = metrics("lora-x", 1, data_id="d" * 10, started="2025-01-01T00:00:00+00:00")
    post = {"name": "none", "params": {}, "units": None, "transductive": False}
    write_json(seed / "metrics.none.json", {**found, "post": post, "split": "test"})
    dsl = {**found, "post": {**post, "name": "dsl", "transductive": True}, "split": "test"}
    write_json(seed / "metrics.dsl.json", dsl)
    other = {**found, "selection": {"rule": "test_best", "step": 2}, "post": post, "split": "test"}
    write_json(seed / "metrics.none.test_best.json", other)
    export(seed, tmp_path / "made")
    card = (tmp_path / "made" / "README.md").read_text(encoding="utf-8")
    assert "| test | none | last | t2v | 41.0 | 70.0 | 80.0 | 191.0 | 2.0 | 15.0 |" in card
    assert "1000 queries, data_id dddddddddd, 0 clips left out, code cccccccccccc" in card
    assert "- dsl uses all test queries together: not comparable" in card
    assert "test_best" not in card  # numbers of another checkpoint than the exported one
    assert "| step | 4 |" in card
    assert "discovla.load(" in card
    assert "Terms of use" in card
    metadata = json.loads((tmp_path / "made" / "config.json").read_text())
    assert metadata["run_id"] in card


@pytest.mark.parametrize("form", LOADING)
def test_the_lines_of_the_card_load_the_folder(
    runs: dict[str, Path], form: str, tmp_path: Path
) -> None:
    export(runs["lora"], tmp_path / "made", form)
    card = (tmp_path / "made" / "README.md").read_text(encoding="utf-8")
    lines = card.split("```python\n")[1].split("```")[0]
    video = write_video(tmp_path / "one.mp4")
    for name, path in (("PATH/TO/THIS/FOLDER", tmp_path / "made"), ("one.mp4", video)):
        lines = lines.replace(name, str(path))
    names: dict[str, Any] = {}
    exec(lines.replace("two.mp4", str(video)), names)
    assert form == "open_clip" or names["scores"].shape == (1, 2)
    assert names["model"] is not None


def test_without_numbers_the_card_says_so(runs: dict[str, Path], tmp_path: Path) -> None:
    export(runs["zero_shot"], tmp_path / "made")
    assert "None were measured" in (tmp_path / "made" / "README.md").read_text(encoding="utf-8")


def test_nothing_is_overwritten(runs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(UserError, match="not empty; give a new folder"):
        export(runs["lora"], tmp_path)
    assert (tmp_path / "mine").read_text() == "mine"
