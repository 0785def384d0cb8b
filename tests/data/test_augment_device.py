"""RandAugment in torch against Pillow's, operation by operation and as a whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from discovla.data import augment
from discovla.data.augment import OPERATIONS, Step, draw, prepare
from discovla.data.augment_device import (
    NATIVE,
    apply_steps,
    encode_steps,
    resize_crop,
    to_pictures,
)

CPU = torch.device("cpu")
INTERPOLATED = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
Frames = NDArray[np.uint8]


def clip(height: int, width: int, frames: int = 2, seed: int = 0, smooth: bool = False) -> Frames:
    """Noise, or a picture with soft and hard edges and few levels."""
    rng = np.random.default_rng(seed)
    made = rng.integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    if not smooth:
        return made
    small = [Image.fromarray(f[: max(1, height // 8), : max(1, width // 8)]) for f in made]
    wide = [f.resize((width, height), Image.Resampling.BICUBIC) for f in small]
    return np.stack([np.asarray(f) // 2 + 40 for f in wide]).astype(np.uint8)


def by_pillow(frames: Frames, *steps: Step) -> Frames:
    return np.stack([np.asarray(augment.apply(steps, Image.fromarray(f))) for f in frames])


def by_torch(frames: Frames, *steps: Step) -> Frames:
    tensor = torch.from_numpy(frames.copy()).movedim(-1, 1)[None].contiguous()
    done = apply_steps(tensor, encode_steps(steps)[None])
    return done[0].movedim(1, -1).numpy()


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name not in INTERPOLATED])
@given(
    level=st.floats(0, 1),
    sign=st.sampled_from([-1.0, 1.0]),
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    smooth=st.booleans(),
    seed=st.integers(0, 99),
)
def test_pixel_operations_give_pillows_bits(
    operation: str, level: float, sign: float, height: int, width: int, smooth: bool, seed: int
) -> None:
    step = Step(operation, augment._VALUES[operation](level, sign))
    frames = clip(height, width, seed=seed, smooth=smooth)
    assert np.array_equal(by_torch(frames, step), by_pillow(frames, step))


@pytest.mark.parametrize("operation", INTERPOLATED)
@given(
    # Bytes are cut, not rounded: a shift of next to nothing may fall on either side.
    level=st.just(0.0) | st.floats(0.4, 1),
    sign=st.sampled_from([-1.0, 1.0]),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_interpolated_operations_are_a_level_off_at_most(
    operation: str, level: float, sign: float, height: int, width: int, seed: int
) -> None:
    step = Step(operation, augment._VALUES[operation](level, sign))
    frames = clip(height, width, seed=seed)
    found, wanted = by_torch(frames, step).astype(int), by_pillow(frames, step).astype(int)
    assert np.abs(found - wanted).max() <= 1
    assert (found != wanted).mean() <= max(0.01, 3 / wanted.size)


@pytest.mark.parametrize("size", [(240, 320), (320, 240), (100, 57), (224, 224), (500, 301)])
def test_resizing_is_two_levels_off_at_most(size: tuple[int, int]) -> None:
    frames = clip(*size)
    found = resize_crop(torch.from_numpy(frames).movedim(-1, 1), 64).int()
    wanted = torch.from_numpy(prepare(frames, 64)).int()
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= 2
    assert (found - wanted).abs().float().mean() < 0.4
    same = resize_crop(torch.from_numpy(clip(64, 64)).movedim(-1, 1), 64)
    assert np.array_equal(same.numpy(), prepare(clip(64, 64), 64))


def native_batch(frames: list[Frames], steps: list[tuple[Step, ...]]) -> dict[str, torch.Tensor]:
    return {
        "pixels": torch.cat([torch.from_numpy(f).flatten() for f in frames]),
        "pixel_sizes": torch.tensor([f.shape[:3] for f in frames]),
        "augment": torch.stack([encode_steps(s) for s in steps]),
        "text_ids": torch.arange(3),
    }


def test_a_batch_of_many_sizes_and_draws_is_pillows_clip_by_clip(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = [(36, 48), (48, 36), (36, 48), (40, 40), (36, 48), (36, 48)] * 4
    frames = [clip(*size, frames=3, seed=n, smooth=True) for n, size in enumerate(sizes)]
    steps = [draw(np.random.default_rng(n)) for n in range(len(sizes))]
    assert any(len(s) > 2 for s in steps)
    batch = native_batch(frames, steps)
    made = to_pictures(batch, 32, CPU)
    assert made.keys() == {*batch, "video"} - {*NATIVE}
    assert made["video"].shape == (len(sizes), 3, 3, 32, 32)
    for number, (one, drawn) in enumerate(zip(frames, steps, strict=True)):
        wanted = torch.from_numpy(prepare(one, 32, drawn)).int()
        distance = (made["video"][number].int() - wanted).abs().float()
        # Equalising or inverting around a threshold can carry a level far, in few pixels.
        assert distance.mean() < 1, drawn
        assert (distance > 3).float().mean() < 0.02, drawn
        alone = to_pictures(native_batch([one], [drawn]), 32, CPU)["video"][0]
        assert torch.equal(alone, made["video"][number])
    monkeypatch.setattr("discovla.data.augment_device._AT_ONCE", 1)
    assert torch.equal(to_pictures(batch, 32, CPU)["video"], made["video"])


def test_no_draw_means_no_change() -> None:
    assert (encode_steps(())[:, 0] == -1).all()
    frames = clip(20, 20)
    assert np.array_equal(by_torch(frames), frames)
