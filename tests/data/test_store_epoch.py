"""Training from a raw store: the very inputs of decoding every clip each time."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from discovla.data.annotations.base import Clip, to_table
from discovla.data.augment import apply, draw
from discovla.data.clips import list_clips
from discovla.data.dataset import RetrievalDataset, collate
from discovla.data.decode import Request, decode_clip
from discovla.data.frames import FrameSettings, sample_shard
from discovla.data.sampler import EpochSampler, generator
from discovla.data.store import FrameStore
from discovla.data.worker import DecodeWorker

CLIPS, FRAMES, SIDE, SEED = 6, 4, 48, 5


def write_textured(path: Path, number: int, size: tuple[int, int]) -> None:
    """A picture with structure at all scales, moving."""
    rng = np.random.default_rng(number)
    width, height = size
    texture = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    wide = np.asarray(texture.resize((width + 40, height), Image.Resampling.BICUBIC))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for n in range(20 + number):
            picture = np.ascontiguousarray(wide[:, n : n + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RetrievalDataset]:
    root = tmp_path_factory.mktemp("videos")
    pairs = []
    for number in range(CLIPS):
        name = f"v{number}"
        write_textured(root / f"{name}.mp4", number, (96, 64) if number % 2 else (64, 80))
        pairs += [(Clip(name, "train", (name,)), f"caption {k}") for k in range(2)]
    annotations = to_table(pairs)
    with DecodeWorker() as worker:
        clips = list_clips(annotations, root, worker)
    folder = tmp_path_factory.mktemp("frames")
    for shard in (1, 2):
        sample_shard(
            *(annotations, clips, root, folder / f"{shard}-of-2.arrow"),
            shard=(shard, 2),
            settings=FrameSettings(frames=FRAMES),
            frames_id="0123456789",
        )
    store = FrameStore(folder)
    assert store.metadata["encoding"] == "raw"

    def tokenize(texts: list[str], length: int) -> torch.Tensor:
        return torch.tensor([[1, 2] + [0] * (length - 2)] * len(texts))

    return root, RetrievalDataset(
        annotations, store, tokenize, 4, SIDE, augment="randaugment", seed=SEED
    )


def decoded_each_time(root: Path, clip_id: str, epoch: int, sample: int) -> torch.Tensor:
    """The definition: decode, augment, resize, crop; one frame after the other."""
    clip = decode_clip(Request(str(root / f"{clip_id}.mp4"), "released", FRAMES))
    steps = draw(generator(SEED, "augment", epoch, sample))
    square = v2.Compose(
        [v2.Resize(SIDE, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(SIDE)]
    )
    pictures = [square(apply(steps, Image.fromarray(frame))) for frame in clip.frames]
    return torch.stack([torch.from_numpy(np.array(p)).permute(2, 0, 1) for p in pictures])


@pytest.mark.parametrize("epoch", [0, 1])
def test_an_epoch_from_the_store_is_an_epoch_of_decoding(
    data: tuple[Path, RetrievalDataset], epoch: int
) -> None:
    root, pairs = data
    sampler = EpochSampler(len(pairs), 4, seed=SEED, epoch=epoch)
    batches = DataLoader(pairs, batch_sampler=sampler, collate_fn=collate)
    seen = 0
    for keys, batch in zip(sampler, batches, strict=True):
        for (_, sample), video in zip(keys, batch["video"], strict=True):
            clip_id = pairs.clip_ids[sample]
            assert torch.equal(video, decoded_each_time(root, clip_id, epoch, sample))
            seen += 1
    assert seen == 2 * CLIPS
