"""The picture's numbers against one frame and one caption set encoded by hand."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch

from discovla.captioning.table import CaptionTable
from discovla.cli import main
from discovla.data.annotations.base import of_split, read_annotations
from discovla.data.augment import prepare
from discovla.data.store import FrameStore
from discovla.report.similarity import frame_caption_similarity, maxima
from discovla.training.checkpoint import load_trained
from discovla.training.loop import train
from tests.training import world as worlds
from tests.training.world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return worlds.build(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def adapter(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    return train(world.config, output_dir=folder, **world.training())


def test_cosine_of_every_frame_with_every_caption(world: World, adapter: Path) -> None:
    run, _ = load_trained(world.config_path, adapter, "cpu")
    store, table = FrameStore(world.frames), CaptionTable(world.captions)
    row = of_split(read_annotations(world.annotations), "train").iloc[0]
    frames, texts = store.clip(row["clip_id"]), table.for_caption(row["caption_id"])
    found = frame_caption_similarity(run, frames, texts)
    ids, mask = run.backbone.tokenize(texts, run.settings.words)
    with torch.inference_mode():
        said = run.retriever.encode_frame_texts(ids[None], mask[None])[0].numpy()
        pixels = torch.from_numpy(prepare(frames, run.backbone.image_size))
        seen = run.retriever.encode_video(pixels[None]).frames[0].numpy()
    assert found.shape == (len(frames), len(texts))
    for i, frame in enumerate(seen):
        for j, text in enumerate(said):
            cosine = frame @ text / np.linalg.norm(frame) / np.linalg.norm(text)
            assert found[i, j] == pytest.approx(cosine, abs=1e-5)


def test_maxima_of_rows_and_columns() -> None:
    similarity = np.array([[0.1, 0.9, 0.3], [0.4, 0.8, 0.2]], np.float32)
    assert maxima(similarity) == ([1, 1], [1, 0, 0])


def test_command(world: World, adapter: Path, tmp_path: Path, capsys) -> None:
    svg = tmp_path / "similarity.svg"
    command = ["show-similarity", str(world.captions), "--config", str(world.config_path)]
    command += ["--annotations", str(world.annotations), "--frames", str(world.frames)]
    command += ["--device", "cpu", "--output", str(svg), "--clips", "1"]
    assert main([*command, "--adapter", str(adapter)]) == 0
    tree = ET.parse(svg)
    marked = {element.get("id") for element in tree.iter()}
    assert {"row-maxima", "column-maxima"} <= marked
    text = "".join("".join(e.itertext()) for e in tree.iter("{http://www.w3.org/2000/svg}text"))
    row = of_split(read_annotations(world.annotations), "train").iloc[0]
    assert f"{row['clip_id']}: {row['caption']}" in text
    for caption in CaptionTable(world.captions).for_caption(row["caption_id"]):
        assert caption in text
    assert main(command) == 1  # trained, but no adapter
    assert "--adapter" in capsys.readouterr().err
