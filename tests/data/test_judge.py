from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from discovla.cli import main
from discovla.data import judge as judging
from discovla.data.decode import evidence
from discovla.data.decode.evidence import own_pixels
from discovla.data.judge import compare, judge, require_ffmpeg
from discovla.data.worker import DecodeWorker
from discovla.errors import UserError
from tests.data.videos import write_video

Shared = Callable[[str], Path]
BROKEN = {
    "derived/derived_empty.mp4",
    "derived/derived_truncated_moov_missing.mp4",
    "mp4parser_example-sans-amf0.mp4",
    "phpffmpeg_WrongFile.mp4",
    "streamio_broken.mp4",
    "streamio_empty.flv",
}


@pytest.fixture(scope="module")
def ffmpeg() -> str:
    program = shutil.which("ffmpeg")
    if program is None:
        pytest.skip("no ffmpeg program")
    return program


@pytest.fixture(scope="module")
def worker() -> Iterator[DecodeWorker]:
    with DecodeWorker(120) as process:
        yield process


def clips(shared: Shared) -> list[str]:
    return list(json.loads(shared("videos/manifest.json").read_text(encoding="utf-8")))


def test_every_frame_of_every_real_clip(shared: Shared, ffmpeg: str, worker: DecodeWorker) -> None:
    names = clips(shared)
    assert len(names) == 42
    for name in names:
        verdict = judge(str(shared(f"videos/{name}")), "auto", worker)
        assert (name, verdict.wrong, verdict.missing) == (name, 0, 0)
        assert (verdict.frames == 0) == (name in BROKEN), name


def test_the_judge_finds_what_decord_makes_up(
    shared: Shared, ffmpeg: str, worker: DecodeWorker
) -> None:
    path = str(shared("videos/derived/derived_editlist_discard.mp4"))
    verdict = judge(path, "decord", worker)
    assert (verdict.frames, verdict.wrong, verdict.missing) == (70, 50, 0)


def test_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ffmpeg: str, worker: DecodeWorker
) -> None:
    video = str(write_video(tmp_path / "-v: a%d.mp4", n_frames=20))
    assert main(["probe", "--judge", video]) == 0
    line = capsys.readouterr().out
    assert line.startswith(f"{video}: mov h264 64x48, 8 fps, 20 frames, pyav (from key frames")
    assert line.endswith("; ffmpeg has 20 frames: 0 wrong, 0 missing\n")


def test_command_without_a_judge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = str(write_video(tmp_path / "good.mp4", n_frames=20))
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    assert main(["probe", "--json", video, str(broken)]) == 3
    good, bad = json.loads(capsys.readouterr().out)
    assert (good["frames"], good["width"], good["error"]) == (20, 64, None)
    assert "judge" not in good
    assert "Replace the file" in bad["error"]
    with pytest.raises(UserError, match="allowed: auto, pyav, decord, torchcodec"):
        raise_of(["probe", "--reader", "opencv", video])


def raise_of(arguments: list[str]) -> None:
    """The command's own error, before the command line turns it into a message."""
    from discovla.cli import build_parser

    args = build_parser().parse_args(arguments)
    args.run(args)


def test_without_ffmpeg_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=r"ffmpeg .*not installed here.*leave --judge out"):
        require_ffmpeg()


def test_an_old_or_slow_ffmpeg(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_text("#!/bin/sh\necho \"Unrecognized option 'fps_mode'\" >&2; exit 1\n")
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    for program in (old, slow):
        program.chmod(0o755)
    with pytest.raises(UserError, match=r"older than 5\.1"):
        judging.checksums(str(old), "a.mp4", "0", 30)
    with pytest.raises(UserError, match=r"longer than 0\.2 s"):
        judging.checksums(str(slow), "a.mp4", "0", 0.2)


@pytest.mark.parametrize(
    ("ours", "truth", "expected"),
    [
        ("abc", "abc", (0, 0)),
        ("abc", "abcde", (0, 2)),
        ("abbc", "abc", (1, 0)),
        ("axc", "abc", (1, 0)),
        ("axd", "abcd", (1, 1)),
        ("", "ab", (0, 2)),
    ],
)
def test_compare(ours: str, truth: str, expected: tuple[int, int]) -> None:
    assert compare(list(ours), list(truth)) == expected


def test_a_changed_pixel_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ffmpeg: str
) -> None:
    path = str(write_video(tmp_path / "v.mp4", n_frames=20))
    here = SimpleNamespace(evidence=evidence.collect, timeout=60)
    assert judge(path, "auto", here).wrong == 0  # type: ignore[arg-type]
    take = evidence.take

    def lies(wish, reader):  # type: ignore[no-untyped-def]
        def keep(image: np.ndarray) -> str:
            changed = image.copy()
            changed[0, 0, 0] ^= 1
            return wish.keep(changed)

        return take(dataclasses.replace(wish, keep=keep), reader)

    monkeypatch.setattr(evidence, "take", lies)
    assert judge(path, "auto", here).wrong == 20  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["yuv420p", "yuv444p", "yuv420p10le", "rgb24", "nv12", "yuyv422"])
def test_own_pixels_are_those_of_rawvideo(name: str) -> None:
    frame = av.VideoFrame.from_ndarray(
        np.random.default_rng(0).integers(0, 255, (6, 10, 3), np.uint8), format="rgb24"
    ).reformat(format=name)
    assert own_pixels(frame) == frame.to_ndarray().tobytes()


def test_a_palette_is_not_judged() -> None:
    frame = av.VideoFrame(8, 8, "pal8")
    with pytest.raises(UserError, match="pal8 cannot be judged"):
        own_pixels(frame)
