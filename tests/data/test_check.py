from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from discovla.cli import main
from discovla.data.annotations import read_annotations, read_metadata
from discovla.data.check import check_dataset, judge
from discovla.data.requirements import Weights, backbone_weights, captioner_weights
from discovla.data.store import FrameStore
from discovla.errors import CheckFailed
from discovla.files import write_json
from tests.data.annotations.files import ACTIVITYNET, write
from tests.data.conftest import World
from tests.data.videos import write_video

EXPECTED = {"train": {"clips": 1, "captions": 1}, "test": {"clips": 1}}
MSRVTT = {"train": {"clips": 9000, "captions": 180000}, "test": {"clips": 1000, "captions": 1000}}


def check(root: Path, **options: Any) -> dict[str, Any]:
    settings = {"rules": {}, "expected": EXPECTED, **options}
    return check_dataset("activitynet", "activitynet", root, **settings)


def verdict(report: dict[str, Any], allow_missing: bool = False) -> dict[str, Any]:
    return judge(report, where="config/config.yaml: data.x", allow_missing=allow_missing)


def message(report: dict[str, Any], allow_missing: bool = False) -> str:
    with pytest.raises(CheckFailed) as caught:
        verdict(report, allow_missing)
    assert caught.value.exit_code == 3
    return str(caught.value)


def test_nothing_there() -> None:
    weights = [
        Weights("backbone vit-b32", "openai", "to fetch", "x"),
        Weights("captioner mine", "models/llava", "missing", "bring it"),
    ]
    report = check_dataset(
        "msrvtt", "msrvtt", "data/absent", rules={}, expected=MSRVTT, weights=weights
    )
    text = message(report)
    assert text == (
        "msrvtt: data not found. Looked in data/absent (config/config.yaml: data.x). Missing: "
        "MSRVTT_train.9k.csv, MSRVTT_JSFUSION_test.csv, MSRVTT_data.json; 10,000 videos; "
        "captioner mine: models/llava (bring it). To be fetched when first needed: "
        "backbone vit-b32: openai (HF_HUB_OFFLINE=1 would forbid it). "
        'Next: README, section "Bring the data".'
    )


def test_everything_there(tmp_path: Path) -> None:
    write(tmp_path, ACTIVITYNET)
    write_video(tmp_path / "v_-abc.mp4", 4)
    write_video(tmp_path / "deep" / "er" / "xyz.MKV", 4)
    report = verdict(check(tmp_path, full=True))
    assert report["videos"] == {"expected": 2, "found": 2, "missing": [], "unreadable": []}
    assert report["counts"]["train"] == {"clips": 1, "captions": 1}
    assert report["excluded"] == []
    assert report == verdict(check(tmp_path, full=True))


def test_missing_videos_are_named_or_allowed(tmp_path: Path) -> None:
    write(tmp_path, ACTIVITYNET)
    (tmp_path / "xyz.mp4").write_bytes(b"broken")
    text = message(check(tmp_path))
    assert "data incomplete" in text
    assert "Missing: 1 videos (v_-abc)." in text
    assert "allow_missing: true" in text
    assert verdict(check(tmp_path), allow_missing=True)["excluded"] == ["v_-abc"]
    text = message(check(tmp_path, full=True))
    assert "1 videos (v_-abc); 1 videos cannot be read (v_xyz)" in text
    report = verdict(check(tmp_path, full=True), allow_missing=True)
    assert report["excluded"] == ["v_-abc", "v_xyz"]
    (tmp_path / "xyz.mp4").unlink()
    assert "data not found" in message(check(tmp_path), allow_missing=True)


def test_other_counts_are_told(tmp_path: Path) -> None:
    write(tmp_path, ACTIVITYNET)
    for stem in ("abc", "-abc", "xyz"):
        (tmp_path / f"{stem}.mp4").touch()
    expected = {"train": {"clips": 2}, "val": {"captions": 7}}
    text = message(check(tmp_path, expected=expected))
    assert "train has 1 clips, published are 2; val has 0 captions, published are 7" in text
    assert verdict(check(tmp_path, expected=expected), allow_missing=True)["differs"]


def test_missing_weights_are_never_allowed(tmp_path: Path) -> None:
    write(tmp_path, ACTIVITYNET)
    for stem in ("-abc", "xyz"):
        (tmp_path / f"{stem}.mp4").touch()
    weights = [Weights("backbone b", "b.pt", "missing", "bring it")]
    text = message(check(tmp_path, weights=weights), allow_missing=True)
    assert "weights not found" in text
    assert "backbone b: b.pt (bring it)" in text


@pytest.fixture
def _no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


@pytest.mark.usefixtures("_no_cache")
def test_states_of_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "w.pt"
    file.touch()
    entry = {"architecture": "ViT-B-32-quickgelu", "weights": "openai"}
    model = {"model": "llava-hf/some-model", "revision": None}

    def states() -> list[str]:
        return [
            backbone_weights("x", entry).status,
            backbone_weights("x", {**entry, "weights": str(file)}).status,
            backbone_weights("x", {**entry, "weights": str(tmp_path / "no.pt")}).status,
            captioner_weights("y", model).status,
            captioner_weights("y", {"model": str(tmp_path)}).status,
        ]

    assert states() == ["to fetch", "present", "missing", "to fetch", "missing"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert states() == ["missing", "present", "missing", "missing", "missing"]
    assert "HF_HUB_OFFLINE=1" in backbone_weights("x", entry).hint
    for repository, name in (
        ("timm--vit_base_patch32_clip_224.openai", "open_clip_model.safetensors"),
        ("llava-hf--some-model", "model.safetensors.index.json"),
    ):
        folder = tmp_path / "hub" / f"models--{repository}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text("abc")
        (folder / "snapshots" / "abc").mkdir(parents=True)
        (folder / "snapshots" / "abc" / name).touch()
    (tmp_path / "config.json").touch()
    assert states() == ["present", "present", "missing", "present", "present"]


def test_weights_repository_is_that_of_open_clip() -> None:
    import open_clip

    from discovla.data.requirements import _timm_repository

    for name in ("ViT-B-32-quickgelu", "ViT-B-16-quickgelu"):
        source = open_clip.get_pretrained_cfg(name, "openai")
        assert f"{_timm_repository(name, 'openai')}/" == source["hf_hub"]


# Commands


def test_commands_from_files_to_frames(world: World, tmp_path: Path) -> None:
    root = tmp_path / "a b"
    shutil.copytree(world.root, root)
    write_json(
        root / "annotations.json",
        {
            "clips": [
                {"clip_id": f"--{i}", "split": "train", "file": f"clip {i}.mp4", "captions": ["c"]}
                for i in range(3)
            ]
        },
    )
    table, clips, frames = (tmp_path / n for n in ("a.parquet", "c.parquet", "1-of-1.arrow"))
    source = ["--root", str(root)]
    assert (
        main(["annotations", "--dataset", "w", "--reader", "demo", *source, "--output", str(table)])
        == 0
    )
    assert read_metadata(table)["dataset"] == "w"
    assert main(["clips", "--annotations", str(table), *source, "--output", str(clips)]) == 0
    options = ["--annotations", str(table), "--clips", str(clips), *source, "--shard", "1/1"]
    options += ["--frames", "3", "--frames-id", "00", "--output", str(frames)]
    assert main(["sample-frames", *options]) == 0
    assert FrameStore(frames).clip_ids == read_annotations(table)["clip_id"].tolist()
    assert main(["sample-frames", *options[:-1], str(tmp_path / "x"), "--shard", "2/1"]) == 1


def test_rule_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, ACTIVITYNET)
    base = ["annotations", "--dataset", "w", "--reader", "activitynet", "--root", str(tmp_path)]
    base += ["--output", str(tmp_path / "a.parquet"), "--json"]
    assert main([*base, "--rule", "paragraph_order=time"]) == 0
    assert json.loads(capsys.readouterr().out)["rules"] == {"paragraph_order": "time"}
    assert main([*base, "--rule", "paragraph_order"]) == 1
    assert "write NAME=VALUE" in capsys.readouterr().err


def test_check_command_without_data(tmp_path: Path, root: Path) -> None:
    """No data: one message, exit 3, nothing on stdout but the report, torch never imported."""
    code = (
        "import sys; from discovla.cli import main; "
        "code = main(sys.argv[1:]); assert not {'torch', 'transformers'} & set(sys.modules); "
        "sys.exit(code)"
    )
    arguments = ["check", "msrvtt", "--root", str(tmp_path / "no"), "--json"]
    arguments += ["--output", str(tmp_path / "check.json")]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["files"]["missing"][0] == "MSRVTT_train.9k.csv"
    assert "10,000 videos" in done.stderr
    assert not (tmp_path / "check.json").exists()
