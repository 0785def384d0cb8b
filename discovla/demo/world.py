"""The demo world on disk: 740 short videos with their captions, the same ones each time.

Splits: 240 train, 200 val and 300 test videos. A train video has two or three captions, each an
independent partial description, as the real sets have several; a val or test video has one.

Files under the output folder:

* `videos/{clip_id}.mp4`: 64 x 64, 24 frames, 8 per second, H.264;
* `annotations.json`: `{"version": 1, "clips": [{"clip_id", "split", "file", "captions"}]}`, with
  `file` relative to the folder;
* `oracle.json`: `{"version": 1, "frames": {clip_id: [24 descriptions]}}`, what a perfect captioner
  would say of each frame. Only the quality measurement of captioners reads it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from tqdm import tqdm

from discovla.demo.captions import frame_description, video_caption
from discovla.demo.render import render_story
from discovla.demo.scene import FPS, N_FRAMES, Story, draw_story
from discovla.storage.files import write_json
from discovla.storage.folders import replaced_folder

SPLITS = {"train": 240, "val": 200, "test": 300}
SEEDS = {"train": 111, "val": 112, "test": 113}
VIDEOS = "videos"
ANNOTATIONS = "annotations.json"
ORACLE = "oracle.json"
CONTENTS = {VIDEOS, ANNOTATIONS, ORACLE}
CRF = 18


@dataclass(frozen=True)
class Clip:
    """One video of the world: its story and its captions; `number` counts from 0 in the split."""

    split: str
    number: int
    story: Story
    captions: tuple[str, ...]

    @property
    def clip_id(self) -> str:
        """E.g. `demo_train_0007`."""
        return f"demo_{self.split}_{self.number:04d}"

    @property
    def file(self) -> str:
        """Path of the video relative to the folder of the world."""
        return f"{VIDEOS}/{self.clip_id}.mp4"

    def frames(self) -> np.ndarray:
        """The rendered frames before encoding, uint8 (24, 64, 64, 3)."""
        return render_story(self.story, _generator(self.split, self.number, "noise"))

    def descriptions(self) -> list[str]:
        """The oracle description of each of the 24 frames."""
        return [frame_description(self.story.at(frame)) for frame in range(N_FRAMES)]


def _generator(split: str, number: int, purpose: str) -> np.random.Generator:
    """A stream of its own for each use, so that no clip depends on how many others are made."""
    purposes = ("story", "captions", "noise")
    return np.random.default_rng([SEEDS[split], number, purposes.index(purpose)])


def draw_clip(split: str, number: int) -> Clip:
    """The clip `number` of a split; equal arguments give equal clips.

    The captions of a train clip are two or three independent draws, so they may coincide.
    """
    rng = _generator(split, number, "captions")
    story = draw_story(_generator(split, number, "story"))
    n_captions = 2 + int(rng.integers(2)) if split == "train" else 1
    return Clip(split, number, story, tuple(video_caption(story, rng) for _ in range(n_captions)))


def draw_world(sizes: Mapping[str, int] = SPLITS) -> list[Clip]:
    """The first `sizes[split]` clips of each split, in order."""
    return [draw_clip(split, number) for split, n in sizes.items() for number in range(n)]


def encode_video(path: Path, frames: np.ndarray) -> None:
    """Write uint8 (N, H, W, 3) frames as H.264 in MP4.

    One encoder thread, bit-exact muxing and no macroblock tree, whose look-ahead reads memory that
    x264 never wrote in pictures this small: equal frames give equal bytes for one x264 version.
    """
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        options = {"crf": str(CRF), "preset": "veryfast", "threads": "1", "mbtree": "0"}
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def decode_video(path: Path) -> np.ndarray:
    """All frames of a video of this world, uint8 (24, 64, 64, 3)."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "NONE"
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def write_world(out_dir: str | Path, sizes: Mapping[str, int] = SPLITS) -> list[Clip]:
    """Render the world into a folder, complete or not at all.

    Args:
        out_dir: the folder to make; an earlier world there is replaced.
        sizes: clips per split; fewer than `SPLITS` gives the first ones of each.

    Returns:
        The clips written, in the order of `annotations.json`.

    Raises:
        UserError: `out_dir` holds files that are not a demo world.
    """
    clips = draw_world(sizes)
    with replaced_folder(out_dir, CONTENTS) as folder:
        (folder / VIDEOS).mkdir()
        for clip in tqdm(clips, "videos", file=sys.stderr, mininterval=5):
            encode_video(folder / clip.file, clip.frames())
        listed = [
            {"clip_id": c.clip_id, "split": c.split, "file": c.file, "captions": list(c.captions)}
            for c in clips
        ]
        write_json(folder / ANNOTATIONS, {"version": 1, "clips": listed})
        oracle = {clip.clip_id: clip.descriptions() for clip in clips}
        write_json(folder / ORACLE, {"version": 1, "frames": oracle})
    return clips


def middle_frames(n_segments: int) -> list[int]:
    """Frame numbers in the middle of `n_segments` equal segments of a video."""
    return [int((segment + 0.5) * N_FRAMES / n_segments) for segment in range(n_segments)]
