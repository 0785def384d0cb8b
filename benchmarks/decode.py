"""Readers of video side by side: `python -m benchmarks.decode`.

Self-made clips of several lengths, codecs and distances of key frames; each reader takes the
frames of the released rule. A reader whose frames differ from those of plain decoding in order is
named as inexact and not timed. Goal: `auto` within 1.1x of the fastest exact reader everywhere.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np

from benchmarks.interleave import Timing, interleave, print_timings
from discovla.data.decode import READERS, ClipFrames, Request, decode_clip
from discovla.errors import UserError

Way = Callable[[], ClipFrames]
FPS = 30
GOAL = 1.1


@dataclass(frozen=True)
class Kind:
    """One kind of clip."""

    name: str
    n_frames: int
    key_every: int
    """Largest distance of key frames."""
    wanted: int = 12
    size: tuple[int, int] = (320, 240)
    codec: str = "libx264"
    suffix: str = "mp4"
    options: tuple[tuple[str, str], ...] = (("preset", "medium"), ("crf", "26"))
    repeat: int = 5
    """Clips read for one timing: the clock of CPU time ticks every 10 ms."""


KINDS = (
    Kind("15 s, key frame every 250", 450, 250),
    Kind("15 s, key frame every 48", 450, 48),
    Kind("15 s, key frame every 12", 450, 12, repeat=10),
    Kind("4 s, key frame every 250", 120, 250, repeat=10),
    Kind("3 min, key frame every 250", 5400, 250, wanted=32, repeat=1),
    Kind("3 min, key frame every 48", 5400, 48, wanted=32, repeat=1),
    Kind("10 s, 1280x720", 300, 250, size=(1280, 720), repeat=1),
    Kind("15 s, mkv", 450, 250, suffix="mkv"),
    Kind("10 s, HEVC", 300, 250, codec="libx265", options=(("x265-params", "log-level=0"),)),
    Kind(
        "15 s, VP9 webm",
        450,
        128,
        codec="libvpx-vp9",
        suffix="webm",
        options=(("deadline", "realtime"), ("cpu-used", "8")),
    ),
    Kind(
        "4 s, MPEG-4 avi",
        120,
        12,
        codec="mpeg4",
        suffix="avi",
        options=(("qscale", "5"),),
        repeat=25,
    ),
    Kind(
        "4 s, MPEG-4 avi with B-frames",
        120,
        12,
        codec="mpeg4",
        suffix="avi",
        options=(("bf", "2"), ("qscale", "5")),
        repeat=25,
    ),
)


def pictures(kind: Kind, seed: int = 0) -> Iterator[np.ndarray]:
    """(H, W, 3) pictures: a texture that scrolls, a square that jumps, and grain."""
    rng = np.random.default_rng(seed)
    width, height = kind.size
    coarse = rng.integers(0, 255, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    texture = coarse.repeat(16, axis=0).repeat(16, axis=1)[:height, :width]
    grain = rng.integers(0, 24, (height, width, 3), dtype=np.uint8)
    for number in range(kind.n_frames):
        image = np.roll(texture, (number, 2 * number), axis=(0, 1)) // 2
        image += np.roll(grain, 7 * number, axis=1)
        at = 9 * number % (height - 40)
        image[at : at + 40, at : at + 40] = 255 - number % 128
        yield image


def render(kind: Kind, folder: Path) -> Path:
    """Write the clip of a kind."""
    path = folder / f"clip.{kind.suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(kind.codec, rate=FPS, options=dict(kind.options))
        stream.width, stream.height, stream.pix_fmt = *kind.size, "yuv420p"
        stream.codec_context.gop_size = kind.key_every
        for number, image in enumerate(pictures(kind)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def readers(path: Path, wanted: int) -> dict[str, Way]:
    """Every reader that is installed, as a way to read the clip."""
    ways: dict[str, Way] = {}
    for reader in READERS:
        request = Request(str(path), "released", wanted, reader=reader)
        try:
            decode_clip(request)
        except UserError:
            continue
        ways[reader] = partial(decode_clip, request)
    return ways


def split_exact(ways: Mapping[str, Way], truth: ClipFrames) -> tuple[dict[str, Way], list[str]]:
    """The ways that give the true frames, and the names of those that do not."""
    exact, inexact = {}, []
    for name, way in ways.items():
        clip = way()
        own = name in ("auto", clip.reader)
        if own and clip.n_frames == truth.n_frames and np.array_equal(clip.frames, truth.frames):
            exact[name] = way
        else:
            inexact.append(name)
    return exact, inexact


def times(way: Way, repeat: int) -> Any:
    """Read the clip `repeat` times."""
    for _ in range(repeat):
        way()


def compare(kind: Kind, folder: Path, rounds: int) -> tuple[list[Timing], list[str], str]:
    """Timings of the exact readers on a kind, the inexact ones, and how `auto` read."""
    path = render(kind, folder)
    ways = readers(path, kind.wanted)
    exact, inexact = split_exact(ways, ways["pyav"]())
    timed = {name: partial(times, way, kind.repeat) for name, way in exact.items()}
    return interleave(timed, rounds=rounds), inexact, ways["auto"]().note


def main(arguments: list[str] | None = None) -> None:
    """Print a table per kind, and `auto` against the fastest exact reader."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--longest", type=int, metavar="N", help="cut the clips to N frames")
    args = parser.parse_args(arguments)
    ratios = {}
    for full in KINDS:
        kind = replace(full, n_frames=min(full.n_frames, args.longest or full.n_frames))
        with tempfile.TemporaryDirectory() as folder:
            timings, inexact, note = compare(kind, Path(folder), args.rounds)
        print_timings(f"{kind.name}; {kind.wanted} frames, per clip", timings, kind.repeat)
        print(f"auto: {note}{'; inexact: ' + ', '.join(inexact) if inexact else ''}")
        cpu = {timing.name: timing.cpu for timing in timings}
        ratios[kind.name] = cpu["auto"] / max(min(cpu.values()), 1e-9)
    print("\nauto against the fastest exact reader (CPU time; 1.00 = it is the fastest)")
    for name, ratio in ratios.items():
        print(f"{name:<34}{ratio:>6.2f}x{'' if ratio <= GOAL else f'  goal {GOAL}x missed'}")


if __name__ == "__main__":
    main()
