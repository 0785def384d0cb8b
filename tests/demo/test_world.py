"""The rules of the demo world, and what lies on disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discovla.demo.captions import (
    caption_and_names,
    describe,
    frame_description,
    image_caption,
    video_caption,
    vocabulary,
)
from discovla.demo.render import render_image
from discovla.demo.scene import (
    COLOURS,
    DARK_FRAMES,
    LIGHTS,
    N_FRAMES,
    RADII,
    SHAPES,
    Backdrop,
    Placed,
    Story,
    Thing,
    draw_still,
    draw_story,
)
from discovla.demo.world import (
    SPLITS,
    decode_video,
    draw_clip,
    draw_world,
    middle_frames,
    write_world,
)
from discovla.errors import UserError

SMALL = {"train": 2, "val": 1, "test": 1}
seeds = st.integers(0, 2**32)


def things_of(story: Story) -> list[Thing]:
    return [story.main.thing, *(cameo.placed.thing for cameo in story.cameos)]


def attribute_words(things: list[Thing]) -> set[str]:
    return {word for thing in things for word in describe(thing).split()}


@given(seeds)
def test_story_keeps_the_rules(seed: int) -> None:
    story = draw_story(np.random.default_rng(seed))
    things = things_of(story)
    assert 1 <= len(story.cameos) <= 2
    assert len({thing.colour for thing in things}) == len(things)
    assert story.light in LIGHTS
    assert len(story.brightness) == N_FRAMES
    visible = [len(story.at(frame)) for frame in range(N_FRAMES)]
    # Cameos of five frames never overlap: at most two things at once, each five times.
    assert max(visible) == 2
    assert visible.count(2) == 5 * len(story.cameos)
    for segments in (8, 12):
        seen = [story.at(frame) for frame in middle_frames(segments)]
        for cameo in story.cameos:
            assert sum(cameo.placed in placed for placed in seen) >= 1
    for placed in story.at(0):
        assert 0 < placed.x < 1
        assert 0 < placed.y < 1


@given(seeds)
def test_video_caption_says_only_what_is_true(seed: int) -> None:
    rng = np.random.default_rng(seed)
    story = draw_story(rng)
    things = things_of(story)
    caption, names = caption_and_names(story, rng)
    words = caption.replace(",", "").split()
    assert set(words) <= set(vocabulary())
    said = set(words) & {*COLOURS, *SHAPES, *RADII, "striped"}
    assert said <= attribute_words(things)
    assert 2 <= len(names) <= len(things)
    place = 0
    for name in names:
        place = caption.index(name, place) + len(name)
        assert any(set(name.split()) <= {*describe(thing).split(), "shape"} for thing in things)
    assert len(words) <= 38  # fits CLIP's context of 40 with both marks


@given(seeds)
def test_image_caption_says_only_what_is_true(seed: int) -> None:
    rng = np.random.default_rng(seed)
    placed, _ = draw_still(rng)
    words = set(image_caption(placed, rng).replace(",", "").split())
    said = words & {*COLOURS, *SHAPES, *RADII, "striped"}
    assert said <= attribute_words([item.thing for item in placed])


@given(seeds, st.integers(0, N_FRAMES - 1))
def test_frame_description_names_everything_in_full(seed: int, frame: int) -> None:
    story = draw_story(np.random.default_rng(seed))
    names = frame_description(story.at(frame)).split(" and ")
    assert names == [describe(item.thing) for item in story.at(frame)]
    assert "plain" not in names[0]


def test_words_are_dropped_at_the_stated_rates() -> None:
    rng = np.random.default_rng(0)
    said = {"size": 0, "striped": 0, "colour": 0, "shape": 0}
    total = striped = 0
    for _ in range(1500):
        story = draw_story(rng)
        by_colour = {thing.colour: thing for thing in things_of(story)}
        for name in caption_and_names(story, rng)[1]:
            words = set(name.split())
            total += 1
            said["size"] += bool(words & set(RADII))
            said["colour"] += bool(words & set(COLOURS))
            said["shape"] += "shape" not in words
            for colour in words & set(COLOURS):
                striped += by_colour[colour].striped
                said["striped"] += "striped" in words
    assert said["size"] / total == pytest.approx(0.4, abs=0.03)
    assert said["colour"] / total == pytest.approx(0.92, abs=0.02)
    assert said["shape"] / total == pytest.approx(0.92, abs=0.02)
    assert said["striped"] / striped == pytest.approx(0.6, abs=0.04)


def test_lights_and_dark_frames_have_the_stated_rates() -> None:
    stories = [draw_story(np.random.default_rng(seed)) for seed in range(600)]
    gains = np.array([story.brightness for story in stories])
    assert np.mean(gains < 0.5) == pytest.approx(DARK_FRAMES, abs=0.02)
    assert np.all((gains <= 0.35) | (gains >= 0.75))
    for light in LIGHTS:
        share = np.mean([story.light == light for story in stories])
        assert share == pytest.approx(1 / len(LIGHTS), abs=0.06)
    assert np.mean([len(s.cameos) == 2 for s in stories]) == pytest.approx(0.6, abs=0.06)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_have_their_size_and_colour(shape: str) -> None:
    areas = {}
    for size, radius in RADII.items():
        placed = Placed(Thing("white", shape, size, striped=False), 0.5, 0.5, radius)
        black = Backdrop((0, 0, 0), (0, 0))
        image = render_image([placed], black, np.random.default_rng(0), noise=0)
        assert image.shape == (64, 64, 3)
        areas[size] = image.sum() / (3 * 240)
    circle = np.pi * RADII["large"] ** 2
    expected = {
        "circle": circle,
        "square": (2 * 0.87 * RADII["large"]) ** 2,
        "cross": RADII["large"] ** 2 * (4 * 2 * 0.32 - (2 * 0.32) ** 2),
        "ring": 0.75 * circle,
    }
    assert areas["large"] == pytest.approx(expected[shape], rel=0.06)
    assert areas["small"] < 0.5 * areas["large"]


def test_clips_are_the_same_each_time_and_do_not_depend_on_their_number() -> None:
    assert draw_clip("val", 3) == draw_clip("val", 3)
    assert draw_world({"test": 2})[1] == draw_clip("test", 1)
    assert np.array_equal(draw_clip("val", 3).frames(), draw_clip("val", 3).frames())
    assert draw_clip("train", 7).clip_id == "demo_train_0007"


def test_splits_share_no_video() -> None:
    clips = draw_world()
    assert [sum(c.split == split for c in clips) for split in SPLITS] == [240, 200, 300]
    assert len({clip.clip_id for clip in clips}) == len(clips)
    assert len({clip.story for clip in clips}) == len(clips)


def test_train_videos_have_several_captions_and_others_one() -> None:
    clips = draw_world()
    assert {len(c.captions) for c in clips if c.split == "train"} == {2, 3}
    assert {len(c.captions) for c in clips if c.split != "train"} == {1}


def test_caption_alone_is_the_one_with_names() -> None:
    story = draw_story(np.random.default_rng(5))
    with_names = caption_and_names(story, np.random.default_rng(6))[0]
    assert video_caption(story, np.random.default_rng(6)) == with_names


def test_written_world_decodes_to_what_was_rendered(tmp_path) -> None:
    clips = write_world(tmp_path / "demo", SMALL)
    annotations = json.loads((tmp_path / "demo/annotations.json").read_text())
    oracle = json.loads((tmp_path / "demo/oracle.json").read_text())
    assert [entry["clip_id"] for entry in annotations["clips"]] == [c.clip_id for c in clips]
    for clip, entry in zip(clips, annotations["clips"], strict=True):
        assert set(entry) == {"clip_id", "split", "file", "captions"}
        frames = decode_video(tmp_path / "demo" / entry["file"])
        assert frames.shape == (N_FRAMES, 64, 64, 3)
        assert np.abs(frames.astype(int) - clip.frames()).mean() < 6
        assert oracle["frames"][clip.clip_id] == clip.descriptions()
        with av.open(str(tmp_path / "demo" / entry["file"])) as container:
            assert container.streams.video[0].average_rate == 8


def test_writing_twice_gives_equal_bytes_and_replaces_the_old_world(tmp_path) -> None:
    write_world(tmp_path / "demo", SMALL)
    first = {p.name: p.read_bytes() for p in (tmp_path / "demo").rglob("*") if p.is_file()}
    (tmp_path / "demo/videos/stray.mp4").touch()
    write_world(tmp_path / "demo", SMALL)
    second = {p.name: p.read_bytes() for p in (tmp_path / "demo").rglob("*") if p.is_file()}
    assert first == second
    assert [p.name for p in tmp_path.iterdir()] == ["demo"]


def test_bytes_do_not_depend_on_what_memory_held_before() -> None:
    # glibc fills fresh memory with a value of our choice; elsewhere the variable means nothing.
    code = (
        "import hashlib, pathlib, sys, tempfile\n"
        "from discovla.demo.world import draw_clip, encode_video\n"
        "path = pathlib.Path(tempfile.mkdtemp(dir=sys.argv[1]), 'v.mp4')\n"
        "for number in (7, 10, 11):\n"
        "    encode_video(path, draw_clip('train', number).frames())\n"
        "    print(hashlib.sha256(path.read_bytes()).hexdigest())\n"
    )

    def digests(fill: int) -> list[str]:
        with tempfile.TemporaryDirectory() as folder:
            found = subprocess.run(
                [sys.executable, "-c", code, folder],
                env={**os.environ, "MALLOC_PERTURB_": str(fill)},
                capture_output=True,
                text=True,
                check=True,
            )
        return found.stdout.split()

    first = digests(0)
    assert len(set(first)) == 3
    assert digests(85) == first
    assert digests(170) == first


def test_foreign_files_are_not_deleted(tmp_path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"thesis\.tex"):
        write_world(tmp_path, SMALL)
    with pytest.raises(UserError, match="is a file"):
        write_world(tmp_path / "thesis.tex", SMALL)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch) -> None:
    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("discovla.demo.world.encode_video", stop)
    with pytest.raises(KeyboardInterrupt):
        write_world(tmp_path / "demo", SMALL)
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=20)
@given(st.integers(1, N_FRAMES))
def test_middle_frames_are_inside_and_increasing(segments: int) -> None:
    frames = middle_frames(segments)
    assert len(frames) == segments
    assert frames == sorted(set(frames))
    assert 0 <= frames[0] <= frames[-1] < N_FRAMES
