from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from discovla.data.check import check_dataset, judge
from discovla.data.checks.captions import Limit
from discovla.data.checks.videos import Look
from discovla.data.checks.work import Frames, Plan
from discovla.data.requirements import Weights, captioner_weights
from discovla.errors import CheckFailed, UserError
from discovla.storage.files import canonical_json
from tests.data.checks.world import clip, dataset
from tests.data.videos import write_video

EXPECTED = {"train": {"clips": 1, "captions": 1}, "test": {"clips": 1}}
MSRVTT = {"train": {"clips": 9000, "captions": 180000}, "test": {"clips": 1000, "captions": 1000}}
PLAN = Plan(limits=(Limit(32),), frames=(Frames("f", 12),))


def check(root: Path, **options: Any) -> dict[str, Any]:
    settings = {"rules": {}, "expected": EXPECTED, "plan": PLAN, **options}
    return check_dataset("mine", "demo", root, **settings)


def verdict(report: dict[str, Any], allow_missing: bool = False) -> dict[str, Any]:
    return judge(report, where="config/config.yaml: data.x", allow_missing=allow_missing)


def message(report: dict[str, Any], allow_missing: bool = False) -> str:
    with pytest.raises(CheckFailed) as caught:
        verdict(report, allow_missing)
    assert caught.value.exit_code == 3
    return str(caught.value)


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A dataset of two clips without videos."""
    return dataset(tmp_path / "two", clip("a"), clip("b", "test"))


FULL = Look(full=True, frames=12)


def test_nothing_there() -> None:
    weights = [
        Weights("backbone vit-b32", "openai", "to fetch", "x"),
        Weights("captioner mine", "models/llava", "missing", "bring it", ("table1", "table5")),
    ]
    report = check_dataset(
        "msrvtt", "msrvtt", "data/absent", rules={}, expected=MSRVTT, weights=weights
    )
    text = message(report)
    assert text == (
        "msrvtt: data not found. Looked in data/absent (config/config.yaml: data.x). Missing: "
        "MSRVTT_train.9k.csv, MSRVTT_JSFUSION_test.csv, MSRVTT_data.json; 10,000 videos; "
        "captioner mine: models/llava (bring it; needed by table1, table5). To be fetched when "
        "first needed: backbone vit-b32: openai (HF_HUB_OFFLINE=1 would forbid it). "
        "Next: 'snakemake msrvtt_annotations --cores 1', then README, section \"Bring the data\"."
    )


def test_everything_there(two: Path) -> None:
    write_video(two / "a.mp4", 4, fps=4)
    write_video(two / "deep" / "er" / "b.MKV", 5, fps=4)
    report = verdict(check(two, look=FULL))
    videos = report["videos"]
    assert (videos["expected"], videos["found"], videos["missing"]) == (2, 2, [])
    assert report["counts"]["train"] == {"clips": 1, "captions": 1}
    assert (report["excluded"], report["effect"], report["differs"]) == ([], {}, [])
    assert report["captions"]["test"]["captions"] == 1
    assert report["work"]["frames"][0]["frames"] == 24
    assert [entry["clip"] for entry in videos["short"]] == ["a", "b"]


def test_equal_data_give_equal_bytes(two: Path) -> None:
    for name in "ab":
        write_video(two / f"{name}.mp4")
    for look in (Look(), FULL):
        one, other = (verdict(check(two, look=look)) for _ in range(2))
        assert json.dumps(one) == json.dumps(other)
        assert canonical_json(one)  # no value that JSON does not know


def test_missing_videos_are_named_or_allowed(tmp_path: Path) -> None:
    root = dataset(tmp_path, *(clip(name) for name in "ab"), *(clip(n, "test") for n in "cd"))
    (root / "b.mp4").write_bytes(b"broken")
    for name in "cd":
        write_video(root / f"{name}.mp4")
    text = message(check(root, expected={}, look=FULL))
    assert "data incomplete" in text
    assert "1 videos (a); 1 videos cannot be read (b)" in text
    assert "set allow_missing: true; results say what was left out: no train clip is left" in text
    (root / "d.mp4").unlink()
    report = verdict(check(root, expected={}, look=FULL), allow_missing=True)
    assert report["allow_missing"] is True
    assert report["excluded"] == ["a", "d", "b"]
    assert report["effect"]["test"]["points"] == 50
    assert report["work"]["frames"][0]["frames"] == 12


def test_without_any_video_nothing_can_be_allowed(two: Path) -> None:
    report = check(two)
    text = message(report, allow_missing=True)
    assert "data not found" in text
    assert "allow_missing" not in message(report)
    assert report["work"]["frames"][0]["frames"] == 24  # all that is to come


def test_other_names_than_expected_are_shown(two: Path) -> None:
    write_video(two / "a.mp4")
    (two / "video-of-b.mp4").write_bytes(b"x")
    assert (
        "1 video files there have names that no clip asks for, such as 'video-of-b.mp4'."
        in message(check(two))
    )


def test_other_counts_are_told(two: Path) -> None:
    for name in "ab":
        write_video(two / f"{name}.mp4")
    expected = {"train": {"clips": 2}, "val": {"captions": 7}}
    text = message(check(two, expected=expected))
    assert "train has 1 clips, published are 2; val has 0 captions, published are 7" in text
    assert "1 of 2 train clips (1 of 1 captions) left to train on" in text
    assert verdict(check(two, expected=expected), allow_missing=True)["differs"]


def test_a_dataset_of_ones_own_has_no_published_counts(two: Path) -> None:
    for name in "ab":
        write_video(two / f"{name}.mp4")
    report = verdict(check(two, expected={}))
    assert (report["differs"], report["effect"], report["expected"]) == ([], {}, {})


def test_missing_weights_are_never_allowed(two: Path) -> None:
    for name in "ab":
        write_video(two / f"{name}.mp4")
    weights = [Weights("backbone b", "b.pt", "missing", "bring it")]
    text = message(check(two, weights=weights), allow_missing=True)
    assert "weights not found" in text
    assert "backbone b: b.pt (bring it)" in text


def test_what_only_training_reads_is_not_asked_for_without_training_clips(tmp_path: Path) -> None:
    root = dataset(tmp_path / "one", clip("b", "test"))
    write_video(root / "b.mp4", 30, fps=10)
    entry = {"model": str(tmp_path / "absent"), "revision": None}
    weights = [captioner_weights("mine", entry)]
    report = verdict(check(root, expected={}, weights=weights))
    assert report["weights"] == []
    both = dataset(tmp_path / "both", clip("a"), clip("b", "test"))
    assert "captioner mine" in message(check(both, expected={}, weights=weights), True)


def test_no_caption_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mine: no captions at all in annotations\.json"):
        check(dataset(tmp_path))
