"""Which queries a gallery shows, and what stands beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from discovla.cli import main
from discovla.data.store import FrameStore
from discovla.errors import UserError
from discovla.report.gallery import build_gallery, choose, strip
from discovla.retrieval.ranked import Ranking, rank_queries
from tests.report import results
from tests.report.results import HOSTILE, World


def ranking(scores: np.ndarray, truth: list[int]) -> Ranking:
    own = scores[np.arange(len(truth)), truth]
    ranks = 1.0 + (scores > own[:, None]).sum(1)
    names = [str(n) for n in range(len(truth))]
    columns = [str(n) for n in range(scores.shape[1])]
    return Ranking(names, columns, np.array(truth), scores, ranks, {})


def test_best_have_the_largest_lead_and_worst_the_largest_rank() -> None:
    scores = np.array([[9, 1, 2, 3], [1, 9, 8, 3], [5, 6, 4, 7], [9, 8, 7, 1], [9, 1, 1, 1.0]])
    found = ranking(scores, [0, 1, 2, 3, 0])
    assert found.ranks.tolist() == [1, 1, 4, 4, 1]
    # Query 4 leads by 8, but query 0 has the same video: each video is shown once.
    best, worst = choose(found, 2, 2)
    assert best == [4, 1]
    assert worst == [3, 2]
    assert choose(found, 0, 9) == ([], [3, 2, 1, 0])


def test_a_query_beside_its_own_video_and_the_best_others(world: World) -> None:
    path = world.seed_folder("discovla", 0) / "features.test.safetensors"
    gallery = build_gallery(path, world.annotations, world.frames)
    found = rank_queries(path)
    assert (gallery.run_id, gallery.seed) == (world.run("discovla").run_id, "0")
    assert len(gallery.best) == 3
    assert len(gallery.worst) == 5
    store = FrameStore(world.frames)
    for retrieval in [*gallery.best, *gallery.worst]:
        row = found.caption_ids.index(retrieval.caption_id)
        assert retrieval.own.rank == found.ranks[row]
        order = np.argsort(-found.scores[row])
        names = [found.clip_ids[c] for c in order if found.clip_ids[c] != retrieval.own.clip_id]
        assert [other.clip_id for other in retrieval.others] == names[:3]
        for video in (retrieval.own, *retrieval.others):
            frames = store.clip(video.clip_id)
            np.testing.assert_array_equal(video.strip, strip([frames[p] for p in (0, 4, 7, 11)]))
            place = found.clip_ids.index(video.clip_id)
            assert order.tolist().index(place) + 1 == video.rank


def test_a_strip_keeps_its_frames() -> None:
    frames = [np.full((4, 6, 3), shade, np.uint8) for shade in (10, 20)]
    found = strip(frames)
    assert found.shape == (4, 14, 3)
    assert (found[:, :6] == 10).all()
    assert (found[:, 6:8] == 255).all()
    assert (found[:, 8:] == 20).all()


def test_command_writes_pages_and_pictures(world: World, tmp_path: Path) -> None:
    path = world.seed_folder("lora", 1) / "features.test.safetensors"
    html, png = tmp_path / "gallery.html", tmp_path / "gallery.png"
    files = ["--annotations", str(world.annotations), "--frames", str(world.frames)]
    options = ["--best", "2", "--worst", str(results.CLIPS), "--output", str(html), str(png)]
    assert main(["gallery", str(path), *files, *options]) == 0
    assert Image.open(png).size[0] > 1000
    text = html.read_text(encoding="utf-8")
    assert text.count("data:image/jpeg;base64,") == 4 * results.CLIPS
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror=" in text
    assert HOSTILE not in text


def test_without_frames_the_texts_remain(world: World, tmp_path: Path) -> None:
    path = world.seed_folder("lora", 1) / "features.test.safetensors"
    html, svg = tmp_path / "gallery.html", tmp_path / "gallery.svg"
    annotations = ["--annotations", str(world.annotations)]
    assert main(["gallery", str(path), *annotations, "--output", str(html), str(svg)]) == 0
    assert "no frames on disk" in html.read_text(encoding="utf-8")
    assert "no frames" in svg.read_text(encoding="utf-8")


def test_nothing_to_show_is_refused(world: World) -> None:
    path = world.seed_folder("lora", 1) / "features.test.safetensors"
    with pytest.raises(UserError, match="give at least one query"):
        build_gallery(path, world.annotations, None, best=0, worst=0)
