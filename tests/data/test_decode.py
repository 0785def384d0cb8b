from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from discovla.data.decode import DecodeError, Request, decode_clip, probe
from discovla.data.sampling import SamplingError, sample
from discovla.data.worker import DecodeWorker
from discovla.errors import UserError
from tests.data.videos import number_of, write_video

Shared = Callable[[str], Path]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("v") / "-v: a%d.mp4", n_frames=32, fps=8)


@pytest.fixture(scope="module")
def worker() -> Iterator[DecodeWorker]:
    with DecodeWorker(30) as process:
        yield process


@pytest.mark.parametrize("reader", ["auto", "pyav", "decord"])
@pytest.mark.parametrize("sampling", ["released", "uniform"])
def test_frames_are_those_of_the_rule(video: Path, reader: str, sampling: str) -> None:
    clip = decode_clip(Request(str(video), sampling, 6, reader=reader))
    assert (clip.n_frames, clip.fps, clip.bad_packets) == (32, 8.0, 0)
    assert clip.frames.shape == (6, 48, 64, 3)
    expected = sample(sampling, n_frames=32, fps=8, frames=6)
    assert clip.frame_index.tolist() == expected.tolist()
    assert [number_of(frame) for frame in clip.frames] == expected.tolist()
    assert np.allclose(clip.timestamp, expected / 8)
    assert clip.reader == ("decord" if reader == "decord" else "pyav")
    assert clip.note.startswith("from key frames" if reader == "auto" else "every frame") or (
        reader == "decord"
    )


def test_segment_and_what_lies_behind_it(video: Path) -> None:
    clip = decode_clip(Request(str(video), "released", 4, start=1.0, end=2.0))
    assert [number_of(frame) for frame in clip.frames] == [8, 10, 13, 16]
    assert clip.n_frames == 17  # nothing behind the end was decoded
    whole = decode_clip(Request(str(video), "released", 4, start=0.0, end=31.0))
    assert [number_of(frame) for frame in whole.frames] == [0, 8, 16, 24]
    with pytest.raises(SamplingError, match=r"starts at 9 s, the video ends at 4\.00 s"):
        decode_clip(Request(str(video), "released", 4, start=9.0, end=12.0))


def test_probe(video: Path) -> None:
    header = probe(str(video))
    assert (header.width, header.height, header.fps, header.n_frames) == (64, 48, 8.0, 32)


def test_a_title_in_another_encoding_does_no_harm(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", n_frames=8)
    content = path.read_bytes()
    assert b"VideoHandler" in content
    path.write_bytes(content.replace(b"VideoHandler", b"Vid\xe9oHandler"))
    assert decode_clip(Request(str(path), "released", 4)).n_frames == 8


def test_unknown_reader(video: Path) -> None:
    with pytest.raises(UserError, match="allowed: auto, pyav, decord, torchcodec"):
        decode_clip(Request(str(video), "released", 4, reader="opencv"))


@pytest.mark.parametrize("reader", ["decord", "torchcodec"])
def test_a_reader_that_is_not_there(
    video: Path, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    monkeypatch.setitem(sys.modules, reader, None)
    with pytest.raises(UserError, match=f"reader {reader}: .*reader: auto"):
        decode_clip(Request(str(video), "released", 4, reader=reader))


def test_torchcodec_is_asked_for_the_same_frames(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = decode_clip(Request(str(video), "uniform", 32))

    class VideoDecoder:
        def __init__(self, path: str, *, dimension_order: str, num_ffmpeg_threads: int) -> None:
            assert (path, dimension_order, num_ffmpeg_threads) == (str(video), "NHWC", 1)
            self.metadata = SimpleNamespace(average_fps=8.0)

        def __len__(self) -> int:
            return 32

        def get_frames_at(self, numbers: list[int]) -> SimpleNamespace:
            frames, times = truth.frames[numbers], truth.timestamp[numbers]
            return SimpleNamespace(data=torch.from_numpy(frames), pts_seconds=torch.tensor(times))

    torch = pytest.importorskip("torch")
    package = SimpleNamespace(decoders=SimpleNamespace(VideoDecoder=VideoDecoder))
    monkeypatch.setitem(sys.modules, "torchcodec", package)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", package.decoders)
    clip = decode_clip(Request(str(video), "released", 4, reader="torchcodec"))
    ours = decode_clip(Request(str(video), "released", 4))
    assert (clip.reader, clip.fps, clip.n_frames) == ("torchcodec", ours.fps, ours.n_frames)
    assert np.array_equal(clip.frames, ours.frames)
    assert np.allclose(clip.timestamp, ours.timestamp)


def test_no_video_is_a_one_line_error(tmp_path: Path, worker: DecodeWorker) -> None:
    for content in (b"", b"text, no video", b"ffconcat version 1.0\nfile '/etc/hosts'\n"):
        path = tmp_path / "bad.mp4"
        path.write_bytes(content)
        with pytest.raises(DecodeError) as caught:
            worker.read(Request(str(path), "released", 4))
        assert str(path) in str(caught.value)
        assert "allow_missing" in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(DecodeError, match="No such file"):
        worker.read(Request(str(tmp_path / "absent.mp4"), "released", 4))


# Real files


MEASURED = {  # frames by decoding, bad packets, rotation; shared/videos/README.md
    "decord_corrupted.mp4": (49, 1, 0),
    "derived/derived_editlist_discard.mp4": (70, 0, 0),
    "derived/derived_truncated_faststart.mp4": (75, 1, 0),
    "derived/derived_zeroed_middle.mp4": (110, 10, 0),
    "moviepy_no_duration.webm": (74, 0, 0),
    "moviepy_bitmap.mp4": (5, 0, 0),
    "mp4parser_MOV00006.3gp": (222, 0, 0),
    "streamio_weird_aspect.small.mpg": (36, 0, 0),
    "decord_video_90.mov": (3, 0, -90),
    "torchcodec_nasa_13013.mp4": (390, 0, 0),
}


@pytest.mark.parametrize("name", MEASURED)
def test_real_files_are_counted_by_decoding(shared: Shared, name: str) -> None:
    clip = decode_clip(Request(str(shared(f"videos/{name}")), "released", 12))
    assert (clip.n_frames, clip.bad_packets, clip.rotation) == MEASURED[name]
    assert clip.frame_index[-1] < clip.n_frames


@pytest.mark.parametrize("turn", ["0", "90", "180", "270"])
def test_real_files_are_upright_and_equal_to_decord(shared: Shared, turn: str) -> None:
    path = str(shared(f"videos/decord_video_{turn}.mov"))
    ours = decode_clip(Request(path, "released", 3))
    theirs = decode_clip(Request(path, "released", 3, reader="decord"))
    assert theirs.reader == "decord"
    assert np.array_equal(ours.frames, theirs.frames)
    header = probe(path)
    assert ours.frames.shape[1:3] == (header.height, header.width)


def test_where_decord_fails_pyav_reads(shared: Shared) -> None:
    path = str(shared("videos/torchcodec_av1_video.mkv"))
    clip = decode_clip(Request(path, "released", 12, reader="decord"))
    assert (clip.reader, clip.n_frames) == ("pyav", 125)


@pytest.mark.parametrize(
    "name",
    [
        "streamio_broken.mp4",
        "streamio_empty.flv",
        "mp4parser_example-sans-amf0.mp4",
        "derived/derived_truncated_moov_missing.mp4",
    ],
)
def test_real_broken_files(shared: Shared, worker: DecodeWorker, name: str) -> None:
    path = str(shared(f"videos/{name}"))
    for action in (worker.probe, lambda p: worker.read(Request(p, "released", 12))):
        with pytest.raises(DecodeError, match="Replace the file"):
            action(path)
