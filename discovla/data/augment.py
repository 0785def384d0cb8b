"""RandAugment on whole clips, and the resizing of CLIP.

The released training uses `rand-m7-n4-mstd0.5-inc1`: four draws with replacement from fifteen
operations, each applied with probability ½ at a magnitude from N(7, ½) cut to [0, 10]; all frames
of a clip get the same operations at the same values, before they are resized. "Increasing" means
that a higher magnitude always changes a picture more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

DRAWS = 4
MAGNITUDE = 7.0
SPREAD = 0.5
PROBABILITY = 0.5
MAX_LEVEL = 10.0
FILL = (128, 128, 128)
"""Colour of what a shift or turn uncovers."""


@dataclass(frozen=True)
class Step:
    """One operation with its value; the value of operations without one is 0."""

    operation: str
    value: float


def draw(rng: np.random.Generator) -> tuple[Step, ...]:
    """The operations for one clip, at most `DRAWS`; every draw uses the generator alike."""
    steps = []
    for choice in rng.integers(len(OPERATIONS), size=DRAWS):
        applied = rng.random() < PROBABILITY
        level = min(max(rng.normal(MAGNITUDE, SPREAD), 0.0), MAX_LEVEL) / MAX_LEVEL
        sign = -1.0 if rng.random() < 0.5 else 1.0
        if applied:
            name = OPERATIONS[int(choice)]
            steps.append(Step(name, _VALUES[name](level, sign)))
    return tuple(steps)


def apply(steps: tuple[Step, ...], picture: Image.Image) -> Image.Image:
    """All operations on one RGB picture, in order; its size stays."""
    for step in steps:
        picture = _OPERATIONS[step.operation](picture, step.value)
    return picture


def _nothing(level: float, sign: float) -> float:
    return 0.0


def _enhancement(level: float, sign: float) -> float:
    return 1.0 + sign * 0.9 * level


def _shear(level: float, sign: float) -> float:
    return sign * 0.3 * level


def _translation(level: float, sign: float) -> float:
    return sign * 0.45 * level


_VALUES: dict[str, Callable[[float, float], float]] = {
    "auto_contrast": _nothing,
    "equalize": _nothing,
    "invert": _nothing,
    "rotate": lambda level, sign: sign * 30.0 * level,  # degrees
    "posterize": lambda level, sign: 4 - int(4 * level),  # bits kept
    "solarize": lambda level, sign: 256 - min(256, int(256 * level)),  # threshold
    "solarize_add": lambda level, sign: min(128, int(110 * level)),  # added below 128
    "color": _enhancement,
    "contrast": _enhancement,
    "brightness": _enhancement,
    "sharpness": _enhancement,
    "shear_x": _shear,
    "shear_y": _shear,
    "translate_x": _translation,  # of the width
    "translate_y": _translation,  # of the height
}


OPERATIONS = tuple(_VALUES)
"""Names of the fifteen operations, in the order in which draws count them."""


def _affine(picture: Image.Image, coefficients: tuple[float, ...]) -> Image.Image:
    return picture.transform(
        picture.size,
        Image.Transform.AFFINE,
        coefficients,
        resample=Image.Resampling.BICUBIC,
        fillcolor=FILL,
    )


def _rotate(picture: Image.Image, degrees: float) -> Image.Image:
    return picture.rotate(degrees, resample=Image.Resampling.BICUBIC, fillcolor=FILL)


def _solarize_add(picture: Image.Image, added: float) -> Image.Image:
    table = [min(255, value + int(added)) if value < 128 else value for value in range(256)]
    return picture.point(table * len(picture.getbands()))


def _posterize(picture: Image.Image, bits: float) -> Image.Image:
    mask = (0xFF << (8 - int(bits))) & 0xFF
    return picture.point([value & mask for value in range(256)] * len(picture.getbands()))


_OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "auto_contrast": lambda picture, value: ImageOps.autocontrast(picture),
    "equalize": lambda picture, value: ImageOps.equalize(picture),
    "invert": lambda picture, value: ImageOps.invert(picture),
    "rotate": _rotate,
    "posterize": _posterize,
    "solarize": lambda picture, value: ImageOps.solarize(picture, int(value)),
    "solarize_add": _solarize_add,
    "color": lambda picture, value: ImageEnhance.Color(picture).enhance(value),
    "contrast": lambda picture, value: ImageEnhance.Contrast(picture).enhance(value),
    "brightness": lambda picture, value: ImageEnhance.Brightness(picture).enhance(value),
    "sharpness": lambda picture, value: ImageEnhance.Sharpness(picture).enhance(value),
    "shear_x": lambda picture, value: _affine(picture, (1, value, 0, 0, 1, 0)),
    "shear_y": lambda picture, value: _affine(picture, (1, 0, 0, value, 1, 0)),
    "translate_x": lambda picture, value: _affine(picture, (1, 0, value * picture.width, 0, 1, 0)),
    "translate_y": lambda picture, value: _affine(picture, (1, 0, 0, 0, 1, value * picture.height)),
}


def resize(picture: Image.Image, side: int) -> Image.Image:
    """The short side brought to `side`, bicubic."""
    width, height = picture.size
    short = min(width, height)
    if short == side:
        return picture
    # The long side is cut to an integer, as torchvision does.
    return picture.resize((side * width // short, side * height // short), Image.Resampling.BICUBIC)


def resize_crop(picture: Image.Image, side: int) -> Image.Image:
    """CLIP's preprocessing: the short side to `side`, bicubic, then the central square."""
    picture = resize(picture, side)
    left, top = round((picture.width - side) / 2), round((picture.height - side) / 2)
    if (left, top, side, side) != (0, 0, *picture.size):
        picture = picture.crop((left, top, left + side, top + side))
    return picture


def prepare(
    frames: NDArray[np.uint8], side: int, steps: tuple[Step, ...] = ()
) -> NDArray[np.uint8]:
    """Augment, resize and crop the frames of one clip.

    Args:
        frames: uint8 RGB of shape (F, H, W, 3), native size.
        side: S, the model's image size.
        steps: operations for every frame, from `draw`.

    Returns:
        uint8 of shape (F, 3, S, S), contiguous and writable.
    """
    if not steps and frames.shape[1:3] == (side, side):
        squares = frames
    else:
        squares = np.empty((len(frames), side, side, 3), np.uint8)
        for target, frame in zip(squares, frames, strict=True):
            target[:] = np.asarray(resize_crop(apply(steps, Image.fromarray(frame)), side))
    return squares.transpose(0, 3, 1, 2).copy()
