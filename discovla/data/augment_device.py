"""RandAugment and CLIP's resizing on the device that trains: the policy and draws of `augment`.

Frames come in their native size as uint8 and stay uint8 between operations, as in Pillow. Pixel
operations give Pillow's bits. Shears, shifts, turns and the resizing interpolate in float32, where
Pillow takes float64 or whole numbers: single pixels differ by a level.
Clips of one size go through every operation together, each with its own value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from discovla.data.augment import DRAWS, FILL, OPERATIONS, Step

NATIVE = ("pixels", "pixel_sizes", "augment")
"""Fields of a batch of native frames, in whose place `to_pictures` puts `video`."""
_AT_ONCE = 2**28
"""Bytes of native frames that are worked on at a time; as float32 they take four times that."""
_LUMA = (19595, 38470, 7471)
"""Weights of red, green and blue in Pillow's grey, in 65536ths."""


def encode_steps(steps: Sequence[Step]) -> Tensor:
    """The operations of one clip as (DRAWS, 2) float64: place in `OPERATIONS` (-1: none), value."""
    table = torch.full((DRAWS, 2), -1.0, dtype=torch.float64)
    for row, step in enumerate(steps):
        table[row, 0], table[row, 1] = OPERATIONS.index(step.operation), step.value
    return table


def to_pictures(batch: Mapping[str, Tensor], side: int, device: torch.device) -> dict[str, Tensor]:
    """A batch whose native frames are augmented, resized and cropped on the device.

    Args:
        batch: instead of `video`, pixels (all bytes of all clips), pixel_sizes (B, 3) int64 frames,
            height and width of each clip, augment (B, DRAWS, 2) from `encode_steps`; on the CPU.
        side: S, the model's image size.
        device: where the work is done.

    Returns:
        The batch with video (B, F, 3, S, S) uint8 on the device; other fields stay where they are.
    """
    sizes = [tuple(row) for row in batch["pixel_sizes"].tolist()]
    pixels = batch["pixels"].to(device, non_blocking=True)
    clips = pixels.split([3 * math.prod(size) for size in sizes])
    video = pixels.new_empty(len(sizes), sizes[0][0], 3, side, side)
    for size in dict.fromkeys(sizes):
        here = [n for n, other in enumerate(sizes) if other == size]
        step = max(1, _AT_ONCE // (3 * math.prod(size)))
        for some in (here[start : start + step] for start in range(0, len(here), step)):
            frames = torch.stack([clips[n] for n in some]).view(-1, *size, 3)
            frames = apply_steps(frames.movedim(-1, 2).contiguous(), batch["augment"][some])
            made = resize_crop(frames.flatten(0, 1), side).unflatten(0, (len(some), -1))
            video[_places(some, device)] = made
    return {**{n: t for n, t in batch.items() if n not in NATIVE}, "video": video}


def apply_steps(frames: Tensor, steps: Tensor) -> Tensor:
    """The operations of every clip, in order.

    Args:
        frames: (n, F, 3, H, W) uint8; changed.
        steps: (n, DRAWS, 2) on the CPU, from `encode_steps`.
    """
    for draw in steps.unbind(1):
        numbers = draw[:, 0].tolist()
        for number in dict.fromkeys(n for n in numbers if n >= 0):
            chosen = [clip for clip, other in enumerate(numbers) if other == number]
            operation = _OPERATIONS[OPERATIONS[int(number)]]
            places = _places(chosen, frames.device)
            frames[places] = operation(frames[places], draw[chosen, 1])
    return frames


def _there(small: Tensor, device: torch.device) -> Tensor:
    """A few numbers on the device, where nothing waits for what it still has to do."""
    return small.to(device, non_blocking=True)


def _places(numbers: list[int], device: torch.device) -> Tensor:
    """An index; a list would be one too, but for that the device is waited for."""
    return _there(torch.tensor(numbers), device)


def resize_crop(pictures: Tensor, side: int) -> Tensor:
    """`augment.resize_crop` of pictures (N, 3, H, W) uint8: to (N, 3, side, side)."""
    height, width = pictures.shape[-2:]
    short = min(width, height)
    if short != side:
        # Like Pillow: across first, to bytes, then down.
        tall, wide = side * height // short, side * width // short
        for size in ((height, wide), (tall, wide)):
            resized = F.interpolate(pictures.float(), size, mode="bicubic", antialias=True)
            pictures = resized.round_().clamp_(0, 255).byte()
    top, left = (round((edge - side) / 2) for edge in pictures.shape[-2:])
    return pictures[..., top : top + side, left : left + side]


# Operations: frames (n, F, 3, H, W) uint8 and the value of each clip (n,) float64, on the CPU.

Operation = Callable[[Tensor, Tensor], Tensor]


def _each(values: Tensor, frames: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Values as (n, 1, 1, 1, 1) beside the frames."""
    return _there(values.to(dtype), frames.device).view(-1, 1, 1, 1, 1)


def _blend(low: Tensor, frames: Tensor, values: Tensor) -> Tensor:
    """low + value · (frames - low), cut to a byte: Pillow's enhancements."""
    start = low.float()
    return (start + _each(values, frames) * (frames - start)).clamp_(0, 255).byte()


def _grey(frames: Tensor) -> Tensor:
    """(n, F, 1, H, W) uint8."""
    weighted = sum(w * frames[:, :, c].int() for c, w in enumerate(_LUMA))
    assert isinstance(weighted, Tensor)
    return ((weighted + 0x8000) >> 16).byte()[:, :, None]


def _contrast(frames: Tensor, values: Tensor) -> Tensor:
    mean = _grey(frames).flatten(2).double().mean(-1)
    return _blend((mean + 0.5).floor()[:, :, None, None, None], frames, values)


def _sharpness(frames: Tensor, values: Tensor) -> Tensor:
    """Towards or away from a 3 × 3 mean in which the middle counts five times; edges stay."""
    smooth = frames.clone()
    height, width = frames.shape[-2:]
    if min(height, width) > 2:
        total = 4 * frames[..., 1:-1, 1:-1].int()
        for y in range(3):
            for x in range(3):
                total = total + frames[..., y : height - 2 + y, x : width - 2 + x]
        smooth[..., 1:-1, 1:-1] = ((2 * total + 13) // 26).byte()
    return _blend(smooth, frames, values)


def _histograms(frames: Tensor) -> Tensor:
    """(channels, 256) int64, a channel being one colour of one frame."""
    channels = frames.flatten(0, 2).flatten(1)
    offsets = 256 * torch.arange(len(channels), device=frames.device)
    counts = torch.bincount((channels + offsets[:, None]).flatten(), minlength=256 * len(channels))
    return counts.view(-1, 256)


def _look_up(frames: Tensor, tables: Tensor) -> Tensor:
    """Every pixel's entry in the table (channels, 256) of its channel."""
    channels = frames.flatten(0, 2).flatten(1)
    return tables.byte().gather(1, channels.long()).view_as(frames)


def _auto_contrast(frames: Tensor, values: Tensor) -> Tensor:
    channels = frames.flatten(0, 2).flatten(1)
    low, high = (f(channels, 1).double()[:, None] for f in (torch.amin, torch.amax))
    levels = torch.arange(256, device=frames.device, dtype=torch.float64)
    scale = levels[255] / (high - low).clamp(min=1)  # of tensors: 255.0 / x multiplies by 1 / x
    stretched = (levels * scale + -low * scale).clamp(0, 255).trunc()
    return _look_up(frames, torch.where(high > low, stretched, levels))


def _equalize(frames: Tensor, values: Tensor) -> Tensor:
    counts = _histograms(frames)
    levels = torch.arange(256, device=frames.device)
    last = torch.where(counts > 0, levels, -1).amax(1, keepdim=True)
    step = (counts.sum(1, keepdim=True) - counts.gather(1, last)) // 255
    before = counts.cumsum(1) - counts
    flat = ((step // 2 + before) // step.clamp(min=1)).clamp(max=255)
    return _look_up(frames, torch.where(step > 0, flat, levels))


def _posterize(frames: Tensor, values: Tensor) -> Tensor:
    masks = [(0xFF << (8 - int(bits))) & 0xFF for bits in values.tolist()]
    return frames & _each(torch.tensor(masks), frames, torch.uint8)


def _solarize(frames: Tensor, values: Tensor) -> Tensor:
    return torch.where(frames < _each(values, frames, torch.int32), frames, 255 - frames)


def _solarize_add(frames: Tensor, values: Tensor) -> Tensor:
    more = (frames.int() + _each(values, frames, torch.int32)).clamp_(max=255).byte()
    return torch.where(frames < 128, more, frames)


def _rotate(frames: Tensor, values: Tensor) -> Tensor:
    """Counter-clockwise around the centre, in degrees."""
    height, width = frames.shape[-2:]
    rows = []
    for degrees in values.tolist():
        angle = -math.radians(degrees % 360)
        cos, sin = math.cos(angle), math.sin(angle)
        x, y = width / 2, height / 2
        rows.append((cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y))
    return affine(frames, torch.tensor(rows, dtype=torch.float64))


def _affine_of(coefficients: Callable[[float, int, int], tuple[float, ...]]) -> Operation:
    """The operation that reads from where `coefficients` of (value, height, width) say."""

    def operation(frames: Tensor, values: Tensor) -> Tensor:
        height, width = frames.shape[-2:]
        rows = [coefficients(value, height, width) for value in values.tolist()]
        return affine(frames, torch.tensor(rows, dtype=torch.float64))

    return operation


def affine(frames: Tensor, coefficients: Tensor) -> Tensor:
    """Pixel (x, y) is read at (a x + b y + c, d x + e y + f), bicubic, grey outside.

    Args:
        frames: (n, F, 3, H, W) uint8.
        coefficients: (n, 6) float64, a to f of every clip; coordinates count from pixel edges.
    """
    device, (height, width) = frames.device, frames.shape[-2:]
    # In float64 there too: the same bits as here, and a hundredth of the CPU's time.
    y, x = (torch.arange(e, dtype=torch.float64, device=device) + 0.5 for e in (height, width))
    y, x = y[:, None], x[None]
    a, b, c, d, e, f = (v[:, None, None] for v in _there(coefficients, device).unbind(1))
    down, across = d * x + e * y + f, a * x + b * y + c
    inside = (down >= 0) & (down < height) & (across >= 0) & (across < width)
    rows, y_part = _taps(down, height)
    columns, x_part = _taps(across, width)
    channels = frames.flatten(1, 2).flatten(2)
    y_part, x_part, inside = (t.flatten(1)[:, None] for t in (y_part, x_part, inside))

    def pixels(row: Tensor, column: Tensor) -> Tensor:
        where = (row * width + column).flatten(1)[:, None]
        return channels.gather(2, where.expand_as(channels)).float()

    found = _cubic([_cubic([pixels(r, c) for c in columns], x_part) for r in rows], y_part)
    fill = torch.full((), FILL[0], dtype=torch.uint8, device=device)
    return torch.where(inside, found.clamp_(0, 255).byte(), fill).view_as(frames)


def _taps(places: Tensor, edge: int) -> tuple[list[Tensor], Tensor]:
    """The four pixels around each place (they repeat at the edge), and how far it is past the
    second of them."""
    first = (places - 0.5).floor()
    indices = [(first + n).long().clamp_(0, edge - 1) for n in (-1, 0, 1, 2)]
    return indices, (places - 0.5 - first).float()


def _cubic(v: Sequence[Tensor], d: Tensor) -> Tensor:
    """Between v[1] and v[2] at d in [0, 1), in Pillow's order: equal ones give exactly that."""
    p2, p3, p4 = v[2] - v[0], 2 * (v[0] - v[1]) + v[2] - v[3], v[1] - v[0] - v[2] + v[3]
    return v[1] + d * (p2 + d * (p3 + d * p4))


_OPERATIONS: dict[str, Operation] = {
    "auto_contrast": _auto_contrast,
    "equalize": _equalize,
    "invert": lambda frames, values: 255 - frames,
    "rotate": _rotate,
    "posterize": _posterize,
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "color": lambda frames, values: _blend(_grey(frames), frames, values),
    "contrast": _contrast,
    "brightness": lambda frames, values: _blend(torch.zeros_like(frames), frames, values),
    "sharpness": _sharpness,
    "shear_x": _affine_of(lambda v, h, w: (1, v, 0, 0, 1, 0)),
    "shear_y": _affine_of(lambda v, h, w: (1, 0, 0, v, 1, 0)),
    "translate_x": _affine_of(lambda v, h, w: (1, 0, v * w, 0, 1, 0)),
    "translate_y": _affine_of(lambda v, h, w: (1, 0, 0, 0, 1, v * h)),
}
