"""How well the tiny models know the world: attributes of CLIP, captions of LLaVA-NeXT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from torch.nn import functional as F

from discovla.demo.captions import describe, image_caption
from discovla.demo.clip_model import image_tower, text_tower, to_pixels
from discovla.demo.render import render_image
from discovla.demo.scene import (
    COLOURS,
    RADII,
    SHAPES,
    Placed,
    draw_backdrop,
    draw_colours,
    draw_radius,
    draw_still,
    draw_thing,
)

_VALUES: dict[str, tuple[Any, ...]] = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "size": tuple(RADII),
    "striped": (False, True),
}


@torch.inference_mode()
def zero_shot_accuracy(
    model: open_clip.CLIP, tokenizer: SimpleTokenizer, *, n_images: int = 400, seed: int = 900
) -> dict[str, float]:
    """Share of single-object stills for which CLIP picks the right value of an attribute.

    The texts are full names that differ in the attribute only; the rest is true. Chance is 1/7
    (colour), 1/4 (shape), 1/2 (size, striped).
    """
    rng = np.random.default_rng(seed)
    things, images = [], []
    for _ in range(n_images):
        thing = draw_thing(rng, draw_colours(rng, 1)[0])
        x, y = rng.uniform(0.25, 0.75, size=2)
        placed = Placed(thing, float(x), float(y), draw_radius(rng, thing))
        things.append(thing)
        images.append(render_image([placed], draw_backdrop(rng), rng))
    vision = F.normalize(image_tower(model, to_pixels(np.stack(images)))[1], dim=-1)
    result = {}
    for name, values in _VALUES.items():
        texts = [describe(replace(t, **{name: value})) for t in things for value in values]
        text = F.normalize(text_tower(model, tokenizer, texts), dim=-1)
        scores = (text.view(n_images, len(values), -1) * vision[:, None]).sum(-1)
        truth = torch.tensor([values.index(getattr(t, name)) for t in things])
        result[name] = round((scores.argmax(1) == truth).float().mean().item(), 3)
    return result


@torch.inference_mode()
def retrieval_recall(
    model: open_clip.CLIP, tokenizer: SimpleTokenizer, *, n_images: int = 500, seed: int = 901
) -> dict[str, float]:
    """R@1, R@5 and R@10 in per cent, image to text, on stills with random captions."""
    rng = np.random.default_rng(seed)
    images, texts = [], []
    for _ in range(n_images):
        placed, backdrop = draw_still(rng)
        images.append(render_image(placed, backdrop, rng))
        texts.append(image_caption(placed, rng))
    vision = F.normalize(image_tower(model, to_pixels(np.stack(images)))[1], dim=-1)
    scores = vision @ F.normalize(text_tower(model, tokenizer, texts), dim=-1).T
    rank = (scores > scores.diagonal()[:, None]).sum(1)
    return {f"R@{k}": round(100 * (rank < k).float().mean().item(), 1) for k in (1, 5, 10)}


def caption_scores(captions: Sequence[str], truth: Sequence[str]) -> dict[str, float]:
    """Agreement of captions with full frame descriptions ("a small red ring and a …").

    `exact` and `count` (number of objects) are shares of frames. The attributes are shares of
    objects, compared in order over the frames whose count is right.
    """
    exact = count = 0
    hits: dict[str, list[bool]] = {name: [] for name in _VALUES}
    for caption, expected in zip(captions, truth, strict=True):
        exact += caption == expected
        said, true = caption.split(" and "), expected.split(" and ")
        count += len(said) == len(true)
        if len(said) != len(true):
            continue
        for ours, theirs in zip(map(_attributes, said), map(_attributes, true), strict=True):
            for name, found in hits.items():
                found.append(ours[name] == theirs[name])
    n = max(1, len(truth))
    shares = {name: round(float(np.mean(found)), 3) for name, found in hits.items() if found}
    return {"exact": round(exact / n, 3), "count": round(count / n, 3), **shares}


def _attributes(name: str) -> dict[str, str | bool | None]:
    words = name.split()
    found: dict[str, str | bool | None] = {
        attribute: next((word for word in words if word in values), None)
        for attribute, values in _VALUES.items()
        if attribute != "striped"
    }
    return {**found, "striped": "striped" in words}
