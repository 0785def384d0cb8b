from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pandas as pd
import pytest

from discovla.captioning.prompt import PROMPTS
from discovla.data.annotations.base import Clip, to_table
from discovla.data.checks.work import Captions, Frames, Plan, Training, work_ahead
from discovla.data.encoding import choose_encoding
from discovla.data.estimate import Card
from tests.data.test_estimate import NEXT

CARD = Card("a card", 100.0, 0.5)


def table() -> pd.DataFrame:
    """Three training clips with three captions, two of them equal; two test clips."""
    pairs = [(Clip(f"v{i}", "train", ("s",)), text) for i in range(3) for text in "aab"]
    return to_table([*pairs, *((Clip(f"t{i}", "test", ("s",)), "c") for i in range(2))])


def plan(**options: Any) -> Plan:
    return Plan(
        frames=(Frames("f12", 12, tables=("t",)), Frames("f32", 32)),
        captions=(
            Captions("c1", "f12", "guided", PROMPTS["guided"], "llava-next", 40, NEXT, ("t",)),
            Captions("c2", "f32", "unguided", PROMPTS["unguided"], "own", 40),
        ),
        trainings=(Training("r1", 2, 5), Training("r2", 2, 5, first_caption_only=True)),
        seeds=3,
        card=CARD,
        **options,
    )


def work(absent: tuple[str, ...] = (), **options: Any) -> dict[str, Any]:
    sizes = options.pop("sizes", {"320x240": 4})
    return work_ahead(table(), absent, plan(**options), sizes=sizes, mean_tokens=15.0)


def test_frames_of_all_splits_in_their_size() -> None:
    one, two = work()["frames"]
    assert (one["frames"], one["bytes"]) == (5 * 12, 5 * 12 * 320 * 240 * 3)
    assert (two["frames"], two["tables"]) == (5 * 32, [])
    assert one["encoding"] == "raw"


def test_frames_too_large_to_stay_raw() -> None:
    options = {"encoding": "auto", "limit_gb": 0.001}
    small = Plan(frames=(Frames("f", 12, options),))
    found = work_ahead(table(), (), small, sizes={"640x480": 1}, mean_tokens=1)["frames"][0]
    clips = pd.DataFrame({"status": "ok", "width": 640, "height": [480] * 5})
    expected = choose_encoding(clips, 12, **options)
    assert (found["encoding"], found["short_side"]) == ("jpeg", expected.short_side)
    assert (found["bytes"], found["raw_bytes"]) == (expected.bytes, 5 * 12 * 640 * 480 * 3)


def test_sizes_of_opened_videos_stand_for_all() -> None:
    found = work(sizes={"320x240": 3, "640x480": 2})["frames"][0]
    assert found["bytes"] == 12 * 3 * (3 * 320 * 240 + 2 * 640 * 480)


def test_without_any_opened_video_a_size_is_assumed() -> None:
    found = work(sizes={}, assumed_size=(100, 50))
    assert found["frame_sizes"]["source"].startswith("assumed")
    assert found["frames"][0]["bytes"] == 60 * 100 * 50 * 3


def test_prompts_are_asked_once() -> None:
    guided, unguided = work()["captions"]
    assert (guided["captions"], guided["prompts"]) == (9 * 12, 6 * 12)
    assert (unguided["captions"], unguided["prompts"]) == (9 * 32, 3 * 32)
    assert unguided["cost"] is None  # its captioner's shape is not known
    cost = guided["cost"]
    assert cost["image_tokens"] == 1368
    assert cost["hours_naive"] == pytest.approx(cost["naive"] / 50e12 / 3600, rel=1e-3)
    assert cost["shared"] < cost["naive"]
    assert work()["card"] == asdict(CARD)


def test_stored_frames_are_what_the_captioner_reads() -> None:
    small = Plan(
        frames=(Frames("f", 1, {"encoding": "raw", "short_side": 240}),),
        captions=(Captions("c", "f", "unguided", PROMPTS["unguided"], "x", 9, NEXT),),
    )
    found = work_ahead(table(), (), small, sizes={"640x480": 1}, mean_tokens=1)
    assert found["captions"][0]["cost"]["image_tokens"] == 1368  # of 320 x 240


def test_steps_of_each_training() -> None:
    all_pairs, first = work()["trainings"]
    assert (all_pairs["pairs"], all_pairs["steps"], all_pairs["seeds"]) == (9, 20, 3)
    assert (first["pairs"], first["steps"]) == (3, 5)


def test_what_is_absent_is_not_worked_on() -> None:
    found = work(absent=("v0", "t1"))
    assert found["frames"][0]["frames"] == 3 * 12
    assert found["captions"][0]["prompts"] == 4 * 12
    assert found["trainings"][0]["pairs"] == 6
