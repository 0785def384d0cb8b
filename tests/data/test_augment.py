from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from discovla.data import augment
from discovla.data.augment import DRAWS, Step, apply, draw, prepare, resize_crop

ALL = tuple(augment._OPERATIONS)


def noise(height: int = 24, width: int = 32, frames: int = 1, seed: int = 0) -> np.ndarray:
    shape = (frames, height, width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def one(step: Step, picture: np.ndarray) -> np.ndarray:
    return np.asarray(apply((step,), Image.fromarray(picture)))


def test_fifteen_operations_each_with_a_value() -> None:
    assert len(ALL) == 15
    assert tuple(augment._VALUES) == ALL


def test_draws_are_half_of_four_from_all_operations_at_magnitude_seven() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw(rng) for _ in range(4000)]
    counts = Counter(step.operation for steps in drawn for step in steps)
    assert max(map(len, drawn)) == DRAWS
    assert sum(counts.values()) / 4000 == pytest.approx(2.0, abs=0.05)
    assert all(n == pytest.approx(8000 / 15, rel=0.2) for n in counts.values())
    degrees = np.array([s.value for steps in drawn for s in steps if s.operation == "rotate"])
    assert np.mean(np.abs(degrees)) == pytest.approx(21, abs=0.3)
    assert np.std(np.abs(degrees)) == pytest.approx(1.5, abs=0.2)
    assert 0.4 < np.mean(degrees > 0) < 0.6
    assert any(len({s.operation for s in steps}) < len(steps) for steps in drawn)


@pytest.mark.parametrize("level", [0.0, 0.3, 0.7, 1.0])
def test_values_at_a_level(level: float) -> None:
    values = {name: value(level, -1.0) for name, value in augment._VALUES.items()}
    assert values["rotate"] == -30 * level
    assert values["shear_x"] == values["shear_y"] == -0.3 * level
    assert values["translate_x"] == values["translate_y"] == -0.45 * level
    assert values["posterize"] == 4 - int(level * 4)
    assert values["solarize"] == 256 - int(level * 256)
    assert values["solarize_add"] == int(level * 110)
    for name in ("color", "contrast", "brightness", "sharpness"):
        assert values[name] == 1 - 0.9 * level


def test_pixel_operations_are_their_definitions() -> None:
    picture = noise()[0]
    wide = picture.astype(int)
    assert np.array_equal(one(Step("invert", 0), picture), 255 - wide)
    assert np.array_equal(one(Step("solarize", 77), picture), np.where(wide < 77, wide, 255 - wide))
    brighter = np.where(wide < 128, np.minimum(wide + 77, 255), wide)
    assert np.array_equal(one(Step("solarize_add", 77), picture), brighter)
    assert np.array_equal(one(Step("posterize", 2), picture), wide & 0b11000000)
    assert not one(Step("posterize", 0), picture).any()
    assert np.array_equal(one(Step("brightness", 0.5), picture), wide // 2)


def test_geometric_operations_move_by_a_share_of_the_size_and_fill_with_grey() -> None:
    picture = noise(20, 40)[0]
    moved = one(Step("translate_x", 0.25), picture)
    assert np.array_equal(moved[:, :30], picture[:, 10:])
    assert (moved[:, 30:] == 128).all()
    moved = one(Step("translate_y", -0.5), picture)
    assert np.array_equal(moved[10:], picture[:10])
    assert (moved[:10] == 128).all()
    assert np.array_equal(one(Step("rotate", 180.0), picture), picture[::-1, ::-1])
    sheared = one(Step("shear_x", 1.0), picture)
    assert (sheared[19, 30:] == 128).all()


@pytest.mark.parametrize("operation", ALL)
def test_every_operation_keeps_size_and_is_deterministic(operation: str) -> None:
    picture = noise(17, 23)[0]
    for level in (0.0, 0.7, 1.0):
        step = Step(operation, augment._VALUES[operation](level, 1.0))
        assert one(step, picture).shape == (17, 23, 3)
        assert np.array_equal(one(step, picture), one(step, picture))


def test_all_frames_of_a_clip_get_the_same_operations() -> None:
    frame = noise()[0]
    clip = np.stack([frame] * 4)
    for seed in range(20):
        steps = draw(np.random.default_rng(seed))
        assert steps == draw(np.random.default_rng(seed))
        out = prepare(clip, 16, steps)
        assert (out == out[0]).all()


@pytest.mark.parametrize(
    "size", [(320, 240), (240, 320), (426, 239), (100, 57), (224, 224), (1, 1)]
)
def test_resize_and_crop_are_those_of_torchvision(size: tuple[int, int]) -> None:
    from torchvision.transforms import v2

    transform = v2.Compose(
        [v2.Resize(224, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(224)]
    )
    width, height = size
    picture = Image.fromarray(noise(height, width)[0])
    assert np.array_equal(np.asarray(resize_crop(picture, 224)), np.asarray(transform(picture)))


def test_frames_of_the_final_size_are_only_transposed() -> None:
    clip = noise(16, 16, frames=3)
    clip.flags.writeable = False
    out = prepare(clip, 16)
    assert np.array_equal(out, clip.transpose(0, 3, 1, 2))
    assert out.flags.writeable
    assert out.flags.c_contiguous
