"""The work ahead of a dataset, from its counts and the shapes of the models: pure arithmetic.

A multiplication with an addition counts as two operations. Norms, activations and softmaxes are
left out; they are below a percent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class VisionShape:
    """How LLaVA-NeXT cuts an image into tiles, and the vision transformer that reads each."""

    tile: int
    """Pixels of a tile's side."""
    patch: int
    """Pixels of a patch's side."""
    grids: Sequence[tuple[int, int]]
    """Canvases as (height, width) in pixels."""
    layers: int
    width: int
    mlp: int

    @property
    def side(self) -> int:
        """Patches of a tile's side."""
        return self.tile // self.patch


@dataclass(frozen=True)
class TextShape:
    """A decoder with gated MLPs and grouped key and value heads."""

    layers: int
    width: int
    kv_width: int
    """Width of all key heads together."""
    mlp: int
    vocabulary: int


@dataclass(frozen=True)
class CaptionerShape:
    """What the cost of one answer follows from."""

    template: int
    """Tokens of the conversation format before the prompt."""
    image: VisionShape
    text: TextShape

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Self:
        """An entry of `captioners` in config/estimate.yaml."""
        grids = [(height, width) for height, width in entry["image"]["grids"]]
        image = VisionShape(**{**entry["image"], "grids": grids})
        return cls(entry["template"], image, TextShape(**entry["text"]))


@dataclass(frozen=True)
class Card:
    """An accelerator, as config/estimate.yaml names it."""

    name: str
    peak_tflops: float
    share: float
    """Part of the peak that is reached."""

    def hours(self, flops: float) -> float:
        """Hours of one card for so many operations."""
        return flops / (self.peak_tflops * 1e12 * self.share) / 3600


def best_grid(width: int, height: int, shape: VisionShape) -> tuple[int, int]:
    """The canvas (height, width) of an image: largest use of its pixels, then least waste."""

    def rank(grid: tuple[int, int]) -> tuple[int, int]:
        scale = min(grid[1] / width, grid[0] / height)
        used = min(int(width * scale) * int(height * scale), width * height)
        return -used, grid[0] * grid[1] - used

    return min(shape.grids, key=rank)


def image_tokens(width: int, height: int, shape: VisionShape) -> int:
    """Tokens that LLaVA-NeXT makes of an image: one tile of all, the canvas without its padding,
    and one more for each of its rows.

    Args:
        width: pixels.
        height: pixels.
        shape: of the model.
    """
    rows, columns = (size // shape.tile * shape.side for size in best_grid(width, height, shape))
    if width / height > columns / rows:
        rows -= (rows - int(round(height * (columns / width), 7))) // 2 * 2
    else:
        columns -= (columns - int(round(width * (rows / height), 7))) // 2 * 2
    return shape.side**2 + rows * columns + rows


def image_flops(width: int, height: int, shape: CaptionerShape) -> float:
    """Operations of the vision transformer and the projector (two layers) for one image."""
    image = shape.image
    canvas = best_grid(width, height, image)
    tiles = 1 + (canvas[0] // image.tile) * (canvas[1] // image.tile)
    patches = image.side**2
    tokens = patches + 1
    layer = tokens * (4 * image.width**2 + 2 * image.width * image.mlp)
    layer += 2 * tokens**2 * image.width
    embedding = patches * 3 * image.patch**2 * image.width
    projector = patches * (image.width * shape.text.width + shape.text.width**2)
    return 2.0 * tiles * (image.layers * layer + embedding + projector)


def text_flops(start: int, tokens: int, shape: TextShape) -> float:
    """Operations for `tokens` tokens after `start` that are already there, without the head."""
    linear = 2 * shape.width**2 + 2 * shape.width * shape.kv_width + 3 * shape.width * shape.mlp
    # Each token looks at itself and at all before it: scores and their sum over values.
    seen = tokens * start + tokens * (tokens + 1) // 2
    return 2.0 * shape.layers * (tokens * linear + 2 * shape.width * seen)


def answer_flops(start: int, answer: int, shape: TextShape) -> float:
    """Operations for `answer` words after a prompt of `start` tokens, the head included."""
    return text_flops(start, answer, shape) + 2.0 * answer * shape.width * shape.vocabulary


@dataclass(frozen=True)
class CaptionWork:
    """The captions of one captions_id: how many prompts about how many frames."""

    frames: int
    prompts: int
    """Pairs of a frame and a distinct prompt."""
    before: int
    """Tokens of a prompt before the video caption; all, where it has none."""
    after: float
    """Mean tokens from the video caption on."""
    answer: int
    """Tokens of the longest answer."""


def caption_flops(
    work: CaptionWork, sizes: Mapping[tuple[int, int], int], shape: CaptionerShape
) -> dict[str, float]:
    """Operations of all captions.

    Args:
        work: how many, and how long.
        sizes: (width, height) of frames → how often; only the proportions matter.
        shape: of the captioner.

    Returns:
        `image_tokens` and `prompt_tokens` (means), `naive` (each prompt for itself) and `shared`
        (image and the fixed head of the prompt once per frame).
    """
    total = sum(sizes.values())
    after = round(work.after)
    found = dict.fromkeys(("image_tokens", "prompt_tokens", "naive", "shared"), 0.0)
    for (width, height), times in sizes.items():
        tokens = image_tokens(width, height, shape.image)
        prefix = tokens + shape.template + work.before
        prompt = prefix + after
        image = image_flops(width, height, shape)
        head = image + text_flops(0, prefix, shape.text)
        rest = text_flops(prefix, after, shape.text)
        rest += answer_flops(prompt, work.answer, shape.text)
        part = times / total
        found["image_tokens"] += part * tokens
        found["prompt_tokens"] += part * prompt
        found["naive"] += part * work.prompts * (head + rest)
        found["shared"] += part * (work.frames * head + work.prompts * rest)
    return found


def training_steps(pairs: int, batch_size: int, epochs: int, max_steps: int | None) -> int:
    """Steps of one training: whole batches only (App. A)."""
    steps = pairs // batch_size * epochs
    return min(steps, max_steps or steps)
