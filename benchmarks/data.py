"""What a training sample costs the CPU: from the frame store, and with decoding each time.

    python -m benchmarks.data [--video FILE ...] [--samples 12] [--rounds 3] [--clips 118081]
    python -m benchmarks.data --peer ~/DsicoVLA           with the operations of the released code

Without files of one's own, two videos are made that are like those of MSRVTT: 320x240, 15 s, 30
frames per second, H.264 with a key frame every 250 frames. Raw and PNG frames are checked to give
bit-identical inputs. Where the device augments, what is left for the CPU is timed, and the device's
inputs are compared with Pillow's: a level of 255 on average at most.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from benchmarks.interleave import interleave, print_timings
from discovla.data.annotations.base import Clip, to_table
from discovla.data.augment import FILL, Step, apply, draw, prepare
from discovla.data.augment_device import encode_steps, to_pictures
from discovla.data.clips import list_clips
from discovla.data.dataset import collate, readable
from discovla.data.decode import Request, decode_clip
from discovla.data.encoding import ENCODINGS
from discovla.data.frame_file import record_batch, shard_file
from discovla.data.frames import FrameSettings, sample_shard
from discovla.data.sampler import generator
from discovla.data.shards import shard_name, shard_of
from discovla.data.store import FrameStore
from discovla.data.worker import DecodeWorker

FRAMES, SIDE, FRAMES_ID = 12, 224, "0123456789"
NEAR = 1.0
"""Mean difference allowed to the device's inputs, in levels of 255."""
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
Sample = tuple[str, tuple[Step, ...]]


def make_video(path: Path, seed: int) -> None:
    """A panning background, moving discs and the noise of a camera; about 330 kbit/s."""
    rng = np.random.default_rng(seed)
    width, height = 320, 240
    texture = Image.fromarray(rng.integers(0, 256, (24, 48, 3), dtype=np.uint8))
    wide = np.asarray(texture.resize((2 * width, height), Image.Resampling.BICUBIC)).astype(float)
    y, x = np.mgrid[:height, :width]
    discs = [
        (*rng.uniform(20, 220, 2), *rng.uniform(-2, 2, 2), rng.integers(0, 256, 3))
        for _ in range(5)
    ]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "23", "g": "250"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for n in range(450):
            picture = wide[:, n * width // 450 :][:, :width].copy()
            for left, top, right, down, colour in discs:
                centre = (left + right * n) % width, (top + down * n) % height
                picture[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 < 900] = colour
            noisy = picture + rng.normal(0, 5, (height, width, 1))
            frame = np.clip(noisy, 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def make_stores(videos: dict[str, Path], folder: Path) -> dict[str, FrameStore]:
    """One store of all videos per encoding."""
    pairs = [(Clip(name, "train", (path.stem,)), name) for name, path in videos.items()]
    annotations = to_table(pairs)
    root = next(iter(videos.values())).parent
    with DecodeWorker() as worker:
        clips = list_clips(annotations, root, worker)
    stores = {}
    for encoding in ENCODINGS:
        output = folder / encoding / "1-of-1.arrow"
        settings = FrameSettings(frames=FRAMES, encoding=encoding)
        sample_shard(
            *(annotations, clips, root, output),
            shard=(1, 1),
            settings=settings,
            frames_id=FRAMES_ID,
        )
        stores[encoding] = FrameStore(output)
        size = output.stat().st_size / len(videos) / FRAMES
        print(f"{encoding}: {size:,.0f} bytes per frame")
    return stores


Augment = Callable[[tuple[Step, ...], Image.Image], Image.Image]


def released_operations(clone: Path) -> Augment:
    """The operations of a clone of the released code, called with our draws."""
    sys.path.insert(0, str(clone))
    module = importlib.import_module("tvr.dataloaders.rand_augment")
    renamed = {"translate_x": "translate_x_rel", "translate_y": "translate_y_rel"}

    def augment(steps: tuple[Step, ...], picture: Image.Image) -> Image.Image:
        for step in steps:
            operation = getattr(module, renamed.get(step.operation, step.operation))
            options = {"resample": Image.Resampling.BICUBIC, "fillcolor": FILL}
            values = (
                () if step.operation in ("auto_contrast", "equalize", "invert") else (step.value,)
            )
            picture = operation(picture, *values, **options)
        return picture

    return augment


def released(
    frames: NDArray[np.uint8], steps: tuple[Step, ...], augment: Augment = apply
) -> NDArray[np.float64]:
    """Pictures as the released loader makes them: normalised one by one, float64 in the end."""
    square = v2.Compose(
        [
            v2.Resize(SIDE, interpolation=v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(SIDE),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    video = np.zeros((FRAMES, 3, SIDE, SIDE), np.float64)
    video[:] = torch.stack([square(augment(steps, Image.fromarray(f))) for f in frames]).numpy()
    return video


def ways(
    videos: dict[str, Path],
    stores: dict[str, FrameStore],
    samples: Sequence[Sample],
    augment: Augment = apply,
) -> dict[str, Callable[[], Any]]:
    """Name → what makes the inputs of all samples; `augment` is that of the released path."""

    def decoded(name: str, reader: str = "auto") -> NDArray[np.uint8]:
        return decode_clip(Request(str(videos[name]), "released", FRAMES, reader=reader)).frames

    def inputs(read: Callable[[str], NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        return [prepare(read(name), SIDE, steps) for name, steps in samples]

    def first_read() -> list[NDArray[np.uint8]]:
        return [prepare(FrameStore(stores["raw"].paths).clip(n), SIDE, s) for n, s in samples]

    return {
        "decoding each time": lambda: inputs(decoded),
        "as released (decord, float64)": lambda: [
            released(decoded(n, "decord"), s, augment) for n, s in samples
        ],
        "raw store": lambda: inputs(stores["raw"].clip),
        "  opened anew, its bytes checked": first_read,
        "png store": lambda: inputs(stores["png"].clip),
        "jpeg 95 store (not identical)": lambda: ("lossy", inputs(stores["jpeg"].clip)),
        "raw store, device augments": lambda: native(stores["raw"], samples),
        "  the device's work, by this CPU": lambda: (
            "near",
            on_device(native(stores["raw"], samples)),
        ),
    }


def native(store: FrameStore, samples: Sequence[Sample]) -> dict[str, Tensor]:
    """All that a loader does for a batch which the device augments."""
    items = []
    for name, steps in samples:
        frames = readable(store.clip(name))
        size = torch.tensor(frames.shape[:3])
        items.append({"pixels": frames, "pixel_sizes": size, "augment": encode_steps(steps)})
    return collate(items)


def on_device(batch: dict[str, Tensor]) -> list[NDArray[np.uint8]]:
    """What the device makes of a batch, here on the CPU."""
    return list(to_pictures(batch, SIDE, torch.device("cpu"))["video"].numpy())


def same_inputs(expected: Sequence[NDArray[np.uint8]], found: Any) -> None:
    """Raise unless inputs are bit-identical (after normalisation for the released ones), or near
    where the device makes them."""
    if isinstance(found, tuple):
        return
    if isinstance(found, dict):
        for one, other in zip(expected, on_device(found), strict=True):
            distance = np.abs(one.astype(int) - other).mean()
            if distance > NEAR:
                raise AssertionError(f"the device's inputs are {distance:.2f} levels off")
        return
    for one, other in zip(expected, found, strict=True):
        if other.dtype == np.float64:
            scaled = v2.functional.to_dtype(torch.from_numpy(one), torch.float32, scale=True)
            one = v2.functional.normalize(scaled, list(MEAN), list(STD)).numpy()
        if not np.array_equal(one, other):
            raise AssertionError("the inputs differ from those of decoding each time")


def samples_of(names: Sequence[str], count: int, augmented: bool) -> Iterator[Sample]:
    """As the training set draws them."""
    for number in range(count):
        steps = draw(generator(0, "augment", 0, number)) if augmented else ()
        yield names[number % len(names)], steps


def opening(clips: int, shards: int, folder: Path) -> FrameStore:
    """A store of very small frames, made and opened."""
    names = [f"1004_A_Film_With_A_Title_{n // 3600:02}.{n:09}-{n + 3:09}" for n in range(clips)]
    parts: dict[int, list[str]] = {}
    for name in names:
        parts.setdefault(shard_of(name, shards), []).append(name)
    metadata = {"frames_id": FRAMES_ID, "frames": 1, "encoding": "raw"}
    row: dict[str, Any] = {"position": 0, "frame_index": 0, "timestamp": 0.0, "bad_packets": 0}
    row |= {"width": 1, "height": 1, "encoding": "raw", "data": bytes(3), "reader": "pyav"}
    for shard, here in parts.items():
        name = shard_name(shard, shards)
        own = {"shard": name, "clips": len(here), "clip_ids": here}
        with shard_file(folder / f"{name}.arrow", {**metadata, **own}) as writer:
            for clip_id in here:
                writer.write_batch(record_batch([{"clip_id": clip_id, **row}]))
    timings = interleave({f"{clips:,} clips, {shards} shards": lambda: FrameStore(folder)})
    print_timings("Opening a frame store", timings)
    return FrameStore(folder)


def main() -> None:
    """Run both benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--video", type=Path, nargs="*", help="videos of one folder")
    parser.add_argument("--samples", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clips", type=int, default=118081, help="of the store that is opened")
    parser.add_argument("--peer", type=Path, help="a clone of the released code")
    args = parser.parse_args()
    augment = released_operations(args.peer) if args.peer else apply
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = args.video or [folder / "one.mp4", folder / "two.mp4"]
        if not args.video:
            for seed, path in enumerate(paths):
                make_video(path, seed)
                print(f"{path.name}: {path.stat().st_size * 8 / 15e3:.0f} kbit/s")
        videos = {path.stem: path for path in paths}
        stores = make_stores(videos, folder)
        for augmented in (False, True):
            samples = list(samples_of(list(videos), args.samples, augmented))
            steps = ways(videos, stores, samples, augment)
            timings = interleave(steps, rounds=args.rounds, same=same_inputs)
            title = f"A training sample, RandAugment {'on' if augmented else 'off'}"
            print_timings(title, timings, unit=args.samples)
        opening(args.clips, 256, folder / "many")


if __name__ == "__main__":
    main()
