"""Decoding from key frames gives what decoding everything gives, or steps aside."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discovla.data.decode.clip import take
from discovla.data.decode.keyframes import UnprovenError, read_from_key_frames
from discovla.data.decode.packets import hevc
from discovla.data.decode.request import Taken, Wish
from discovla.errors import UserError

CODECS = {
    "libx264": ("mp4", "mkv", "mov", "avi", "ts"),
    "libx265": ("mp4", "mkv"),
    "mpeg4": ("mp4", "mkv", "avi"),
    "libvpx": ("webm",),
    "libvpx-vp9": ("webm", "mp4"),
    "mpeg1video": ("mpg",),
}

CLOSED = "log-level=none:bframes=0:open-gop=0"


@dataclass(frozen=True)
class Film:
    """How a small file is made."""

    codec: str
    suffix: str
    key_every: int = 8
    b_frames: int = 2
    steps: tuple[int, ...] = (1,) * 24
    """Distance of each frame from the one before, in 25ths of a second."""
    options: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        path = folder / f"film.{self.suffix}"
        rng = np.random.default_rng(len(self.steps))
        with av.open(str(path), "w") as container:
            stream = container.add_stream(self.codec, rate=25, options=self.options)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.codec_context.gop_size = self.key_every
            stream.codec_context.max_b_frames = self.b_frames
            stream.codec_context.time_base = Fraction(1, 25)
            time = 0
            for number, step in enumerate(self.steps):
                picture = np.full((48, 64, 3), 9 * number % 256, np.uint8)
                picture[number % 40 :, number % 32 : number % 32 + 16] = rng.integers(0, 255, 3)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = time, Fraction(1, 25)
                time += step
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path


@st.composite
def films(draw: st.DrawFn) -> Film:
    codec = draw(st.sampled_from(sorted(CODECS)))
    suffix = draw(st.sampled_from(CODECS[codec]))
    constant = codec == "mpeg1video" or suffix == "avi"
    steps = st.just(1) if constant else st.integers(1, 4)
    options = {}
    if codec == "libx265":
        options = {"x265-params": "log-level=none:bframes=" + str(draw(st.integers(0, 3)))}
    if codec == "libx264" and draw(st.booleans()):
        options = {"x264-params": "open-gop=1:scenecut=0"}
    return Film(
        codec,
        suffix,
        key_every=draw(st.integers(1, 12)),
        b_frames=0 if codec.startswith("libvpx") else draw(st.integers(0, 3)),
        steps=tuple(draw(st.lists(steps, min_size=3, max_size=30))),
        options=options,
    )


def read(path: Path, numbers: list[int], reader: str) -> Taken[bytes]:
    """The frames of these numbers, as far as the file has them."""

    def choose(n_frames: int, fps: float) -> np.ndarray:
        return np.array([min(number, n_frames - 1) for number in numbers])

    return take(Wish(str(path), choose, lambda image: image.tobytes()), reader)


def equal(path: Path, numbers: list[int]) -> Taken[bytes]:
    """What `auto` gives, which must be what decoding everything gives."""
    ours, naive = read(path, numbers, "auto"), read(path, numbers, "pyav")
    assert ours.n_frames == naive.n_frames
    assert ours.frame_index.tolist() == naive.frame_index.tolist()
    assert ours.timestamp.tolist() == naive.timestamp.tolist()
    assert ours.kept == naive.kept
    assert (ours.fps, ours.rotation) == (naive.fps, naive.rotation)
    return ours


@settings(max_examples=60)
@given(film=films(), numbers=st.lists(st.integers(0, 29), min_size=1, max_size=8).map(sorted))
def test_random_files_and_random_frames(film: Film, numbers: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        equal(film.write(Path(folder)), numbers)


@settings(max_examples=60)
@given(
    codec=st.sampled_from([("libx264", "mp4"), ("libx265", "mkv"), ("libvpx-vp9", "webm")]),
    place=st.floats(0.05, 0.99),
    damage=st.one_of(st.binary(min_size=1, max_size=300), st.integers(1, 2000).map(bytes)),
    numbers=st.lists(st.integers(0, 29), min_size=1, max_size=4).map(sorted),
)
def test_damaged_files(
    codec: tuple[str, str], place: float, damage: bytes, numbers: list[int]
) -> None:
    """Every picture given is a true one of its time, whatever is broken.

    Only pictures whose damaged headers were not decoded may be counted although none can see them.
    """
    options = {"x265-params": "log-level=none"} if codec[0] == "libx265" else {}
    with tempfile.TemporaryDirectory() as folder:
        path = Film(*codec, b_frames=0, options=options).write(Path(folder))
        content = bytearray(path.read_bytes())
        start = int(place * len(content))
        content[start : start + len(damage)] = damage
        path.write_bytes(content[: max(len(content), 1)])
        try:
            read(path, numbers, "pyav")
        except UserError:
            with pytest.raises(UserError):
                read(path, numbers, "auto")
            return
        ours, naive = read(path, numbers, "auto"), read(path, list(range(30)), "pyav")
        true = dict(zip(naive.timestamp.tolist(), naive.kept, strict=True))
        for time, picture in zip(ours.timestamp.tolist(), ours.kept, strict=True):
            assert true[time] == picture
        assert ours.n_frames >= naive.n_frames


@pytest.mark.parametrize(
    ("film", "most"),
    [
        (Film("libx264", "mp4", key_every=8), 6),
        (Film("libx264", "mkv", key_every=8), 6),
        (Film("libx265", "mp4", 8, 0, options={"x265-params": CLOSED}), 6),
        (Film("mpeg4", "mp4", 8, 0), 6),
        (Film("libvpx", "webm", 8, 0), 6),
        (Film("libvpx-vp9", "webm", 8, 0), 6),
    ],
)
def test_only_the_needed_frames_are_decoded(tmp_path: Path, film: Film, most: int) -> None:
    taken = equal(film.write(tmp_path), [18])
    assert taken.note.startswith("from key frames: ")
    assert int(taken.note.split()[3]) <= most


@pytest.mark.parametrize(
    ("film", "reason"),
    [
        (Film("mpeg1video", "mpg"), "packets of mpeg1video are not looked into"),
        (Film("mpeg4", "mp4", b_frames=2), "packet 2 is not one whole picture"),
        (Film("libx264", "ts"), "packets of h264 are not looked into"),
        (Film("libx264", "avi"), "packets of h264 are not looked into"),
    ],
)
def test_what_is_not_proved_is_decoded_in_order(tmp_path: Path, film: Film, reason: str) -> None:
    path = film.write(tmp_path)
    assert equal(path, [0, 18]).note == f"every frame decoded: {reason}"
    wish = Wish(str(path), lambda n, fps: np.array([0]), lambda image: image)
    with pytest.raises(UnprovenError, match=reason):
        read_from_key_frames(wish)


def test_the_end_of_a_segment_bounds_the_count(tmp_path: Path) -> None:
    path = Film("libx264", "mp4", steps=(1,) * 60).write(tmp_path)

    def first_and_last(n_frames: int, fps: float) -> np.ndarray:
        return np.array([0, n_frames - 1])

    wish = Wish(str(path), first_and_last, lambda image: image.tobytes(), end=1)
    ours, naive = (take(wish, reader) for reader in ("auto", "pyav"))
    assert ours.n_frames == naive.n_frames == 26
    assert ours.kept == naive.kept


def test_an_edit_list_is_seen(shared: Callable[[str], Path]) -> None:
    path = shared("videos/derived/derived_editlist_discard.mp4")
    assert equal(path, [0, 30, 69]).note == "every frame decoded: an edit list hides frames"


def unit(*body: int) -> bytes:
    return len(body).to_bytes(4, "big") + bytes(body)


def test_units_of_hevc() -> None:
    idr, trail, message = (19 << 1, 1, 0x80), (1 << 1, 1, 0x80), (39 << 1, 1, 5)
    assert hevc(memoryview(unit(*message) + unit(*idr)), 4) == (True, True, True, False)
    assert hevc(memoryview(unit(*trail)), 4) == (False, True, True, False)
    for wrong in (unit(*idr) * 2, unit(*message), unit(*idr)[:-1], bytes(64)):
        assert hevc(memoryview(wrong), 4) is None
