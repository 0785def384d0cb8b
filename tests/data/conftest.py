"""A small world of real videos: good ones, broken ones, and ids that try to escape."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from discovla.data.annotations.base import Clip, to_table
from discovla.data.clips import list_clips
from discovla.data.worker import DecodeWorker
from tests.data.videos import write_video


@dataclass(frozen=True)
class World:
    root: Path
    annotations: pd.DataFrame
    clips: pd.DataFrame


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Eight training clips, two of them without frames; four test clips."""
    root = tmp_path_factory.mktemp("world")
    pairs = []
    for number in range(6):
        name = f"clip {number}"
        write_video(root / "videos" / f"{name}.mp4", n_frames=10 + 4 * number, fps=4)
        clip = Clip(name, "train", (name,))
        pairs += [(clip, f"caption {k} of {name}") for k in range(1 + number % 2)]
    (root / "videos" / "broken.mp4").write_bytes(b"no video at all" * 9)
    pairs += [(Clip(name, "train", (name,)), name) for name in ("broken", "../../outside")]
    write_video(root.parent / "outside.mp4")
    for number in range(4):
        name = f"-t{number}"
        size = (64, 48) if number % 2 else (48, 64)
        write_video(root / "videos" / f"{name}.mov.MP4", n_frames=30, fps=4, size=size)
        pairs.append((Clip(name, "test", (name,), 1.0, 5.0), f"test {number}"))
    annotations = to_table(pairs)
    with DecodeWorker() as worker:
        clips = list_clips(annotations, root, worker)
    return World(root, annotations, clips)
