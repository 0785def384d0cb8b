"""Sentences of the demo world: partial video captions, image captions, full descriptions.

A video caption leaves out attributes and cameos at random, as people do; a frame description
names everything. No caption depends on the order of events, since mean pooling and IVFusion
cannot see order (Eq. 5-7 have no temporal position).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from discovla.demo.scene import COLOURS, RADII, SHAPES, Placed, Story, Thing

VERBS = {
    "still": ("stays still", "does not move", "rests"),
    "sideways": ("moves sideways", "slides left and right", "goes from side to side"),
    "vertical": ("moves up and down", "rises and falls", "bounces"),
}
BRIEF_VERBS = ("appears briefly", "shows up for a moment", "flashes by")
IMAGE_TEMPLATES = ("{}", "a photo of {}", "an image of {}", "there is {}", "we see {}", "{} only")
EMPTY_CAPTIONS = ("an empty scene", "nothing", "a dark background")
_ROWS = ("top", "middle", "bottom")
_COLUMNS = ("left", "center", "right")


@dataclass(frozen=True)
class Detail:
    """The probability with which each attribute of an object is said."""

    size: float
    striped: float
    colour: float
    shape: float


VIDEO_DETAIL = Detail(size=0.4, striped=0.6, colour=0.92, shape=0.92)
IMAGE_DETAIL = Detail(size=0.6, striped=0.8, colour=0.92, shape=0.92)


def describe(thing: Thing) -> str:
    """The full name of a thing, e.g. "a small striped red square"; "plain" is never said."""
    striped = ["striped"] if thing.striped else []
    return " ".join(["a", thing.size, *striped, thing.colour, thing.shape])


def frame_description(placed: Sequence[Placed]) -> str:
    """What a perfect captioner says of a frame: every object in full, no position."""
    return " and ".join(describe(item.thing) for item in placed)


def partial_name(thing: Thing, rng: np.random.Generator, detail: Detail) -> str:
    """A name with each attribute word dropped independently; a dropped shape becomes "shape"."""
    size, striped, colour, shape = rng.random(4)
    words = ["a"]
    if size < detail.size:
        words.append(thing.size)
    if thing.striped and striped < detail.striped:
        words.append("striped")
    if colour < detail.colour:
        words.append(thing.colour)
    words.append(thing.shape if shape < detail.shape else "shape")
    return " ".join(words)


def _pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def video_caption(story: Story, rng: np.random.Generator) -> str:
    """One partial caption: the main object and one or two cameos, in random order.

    With probability one half only one cameo is said, else up to two.
    """
    return caption_and_names(story, rng)[0]


def caption_and_names(story: Story, rng: np.random.Generator) -> tuple[str, list[str]]:
    """A video caption and the names of its objects as they stand in it, in their order."""
    names = [partial_name(story.main.thing, rng, VIDEO_DETAIL)]
    clauses = [f"{names[0]} {_pick(rng, VERBS[story.motion])}"]
    n_said = 1 if rng.random() < 0.5 else 2
    for number in rng.permutation(len(story.cameos))[:n_said]:
        names.append(partial_name(story.cameos[number].placed.thing, rng, VIDEO_DETAIL))
        clauses.append(f"{names[-1]} {_pick(rng, BRIEF_VERBS)}")
    order = rng.permutation(len(clauses))
    first, *rest = (clauses[i] for i in order)
    template = rng.integers(3)
    if template == 0:
        caption = " and ".join([first, *rest])
    elif template == 1:
        caption = f"{first} while {' and '.join(rest)}"
    else:
        caption = f"in the video {', '.join([first, *rest])}"
    return caption, [names[i] for i in order]


def position_phrase(placed: Placed) -> str:
    """Where a thing is on a 3 x 3 grid, e.g. "in the top left"."""
    row = _ROWS[min(int(placed.y * 3), 2)]
    column = _COLUMNS[min(int(placed.x * 3), 2)]
    return f"in the {row} {column}"


def image_caption(placed: Sequence[Placed], rng: np.random.Generator) -> str:
    """A caption of a pretraining image: partial names, sometimes positions.

    Three in ten carry words of time and motion that say nothing about the image, so that the
    image CLIP has trained embeddings of those words but no meaning for them.
    """
    if not placed:
        return _pick(rng, EMPTY_CAPTIONS)
    fillers = rng.random() < 0.3
    verbs = [*BRIEF_VERBS, *(verb for verbs in VERBS.values() for verb in verbs)]
    phrases = []
    for number in rng.permutation(len(placed)):
        phrase = partial_name(placed[number].thing, rng, IMAGE_DETAIL)
        if rng.random() < 0.4:
            phrase += " " + position_phrase(placed[number])
        if fillers:
            phrase += " " + _pick(rng, verbs)
        phrases.append(phrase)
    if not fillers:
        return _pick(rng, IMAGE_TEMPLATES).format(" and ".join(phrases))
    joiner = _pick(rng, (" and ", " while ", ", "))
    return _pick(rng, ("{}", "in the video {}")).format(joiner.join(phrases))


def vocabulary() -> list[str]:
    """Every word a video caption or a frame description can hold, sorted."""
    texts = [
        *(verb for verbs in VERBS.values() for verb in verbs),
        *BRIEF_VERBS,
        *COLOURS,
        *SHAPES,
        *RADII,
        "a striped shape and while in the video",
    ]
    return sorted({word for text in texts for word in text.split()})
