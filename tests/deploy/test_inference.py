"""A run in three lines of Python, against the model called by hand."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import discovla
from discovla.data.augment import prepare
from discovla.data.worker import read_frames
from discovla.errors import UserError
from discovla.training.checkpoint import load_run
from discovla.training.loop import train
from tests.data.videos import write_video
from tests.training import world as worlds
from tests.training.world import World

TEXTS = ["red cat runs", "blue dog !", "slowly"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return worlds.build(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def folder(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the workflow lays a run out: config above, adapter in the folder of the seed."""
    run = tmp_path_factory.mktemp("run")
    shutil.copy(world.config_path, run / "config.json")
    train(world.config, output_dir=run / "seed1", **world.training())
    return run / "seed1"


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("videos")
    return [write_video(root / f"ü '{n}.mp4", 20 + 8 * n) for n in range(3)]


@pytest.mark.usefixtures("world")
def test_features_are_those_of_the_model_called_by_hand(
    folder: Path, world: World, videos: list[Path]
) -> None:
    model = discovla.load(folder, device="cpu")
    retriever = load_run(world.config_path, folder / "adapter.safetensors", "cpu")
    settings, side = model.run.settings, model.run.backbone.image_size
    with torch.inference_mode():
        for text, found in zip(TEXTS, model.encode_texts(TEXTS), strict=True):
            ids, mask = model.run.backbone.tokenize([text], settings.words)
            expected = F.normalize(retriever.encode_text(ids, mask)[0], dim=0)
            torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-5, rtol=0)
        features = model.encode_videos(videos, batch_size=2)
        for path, found in zip(videos, features, strict=True):
            clip = read_frames(str(path), sampling=settings.sampling, frames=settings.frames)
            pixels = torch.from_numpy(prepare(clip.frames, side))
            expected = F.normalize(retriever.encode_video(pixels[None]).pooled[0], dim=0)
            torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-5, rtol=0)
    scores = model.similarity(TEXTS, videos)
    assert scores.shape == (3, 3)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, model.encode_texts(TEXTS) @ features.T, atol=1e-6)
    assert model.metadata["seed"] == "1"
    assert model.logit_scale == pytest.approx(float(retriever.logit_scale.detach()))


def test_the_lines_of_the_manual_are_true(folder: Path, videos: list[Path]) -> None:
    page = Path("docs/export.md").read_text(encoding="utf-8")
    lines = page.split("```python\n")[1].split("```")[0]
    lines = lines.replace("results/demo/runs/RUN/seed0", str(folder))
    for name, path in zip(("one.mp4", "two.mp4"), videos, strict=False):
        assert name in lines
        lines = lines.replace(f'"{name}"', repr(str(path)))
    names: dict[str, np.ndarray] = {}
    exec(lines, names)
    assert names["scores"].shape == (1, 2)


def test_nothing_in_gives_nothing_out(folder: Path) -> None:
    model = discovla.load(folder, device="cpu")
    assert model.encode_texts([]).shape == model.encode_videos([]).shape == (0, 24)


def test_zero_shot_needs_no_adapter(world: World, tmp_path: Path) -> None:
    zero = world.with_settings(tmp_path / "zero", method="zero_shot", alpha=0.0, beta=0.0)
    model = discovla.load(zero.folder, device="cpu")
    assert model.metadata == {}
    assert model.encode_texts(TEXTS).shape == (3, 24)


def test_what_cannot_be_read_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run: neither it nor the folder above"):
        discovla.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="has trained tensors"):
        discovla.load(folder.parent, device="cpu")
    with pytest.raises(UserError, match=r"absent\.pt: no such file"):
        discovla.load(folder, device="cpu", weights=tmp_path / "absent.pt")
    model = discovla.load(folder, device="cpu")
    with pytest.raises(UserError, match=r"gone\.mp4: no such video"):
        model.encode_videos([tmp_path / "gone.mp4"])
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    with pytest.raises(UserError, match=r"broken\.mp4"):
        model.encode_videos([broken])
    with pytest.raises(UserError, match="a list of captions"):
        model.encode_texts("one caption")
    with pytest.raises(UserError, match="a list of paths"):
        model.encode_videos(str(broken))
