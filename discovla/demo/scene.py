"""What happens in a demo video: coloured shapes, short cameos, and lighting CLIP never saw.

The design makes the effects of the paper visible in minutes on a CPU:

* a *cameo* is visible in one or two of eight frames, so attention across frames (IVFusion) pays;
* the lighting of a video and its dark frames are a domain gap between image pretraining and
  videos, and video captions name only part of what is there (`captions.py`), so that captions of
  single frames (PImgAlign) carry new information.

Lengths are pixels, positions are fractions of the frame, times are frame numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

SIZE = 64
"""Height and width of every image, pixels."""
N_FRAMES = 24
FPS = 8

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 190, 60),
    "blue": (50, 80, 235),
    "yellow": (235, 215, 50),
    "pink": (240, 110, 190),
    "cyan": (50, 210, 215),
    "white": (240, 240, 240),
}
SHAPES = ("circle", "square", "cross", "ring")
RADII = {"small": 8.0, "large": 13.0}
MOTIONS = ("still", "sideways", "vertical")
LIGHTS = {
    # name: gain of red, green, blue; offset added to all three
    "day": ((1.0, 1.0, 1.0), 0.0),
    "night": ((0.42, 0.52, 0.85), 0.0),
    "lamp": ((1.0, 0.72, 0.42), 0.0),
    "fog": ((0.55, 0.55, 0.55), 80.0),
    "green": ((0.55, 0.88, 0.60), 0.0),
}
CAMEO_SHARE = 0.22
DARK_FRAMES = 0.3


@dataclass(frozen=True)
class Thing:
    """One object: its four attributes, all independent."""

    colour: str
    shape: str
    size: str
    striped: bool


@dataclass(frozen=True)
class Placed:
    """A thing somewhere in an image: centre as fractions of the frame, radius in pixels."""

    thing: Thing
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Backdrop:
    """A dark, tinted background that brightens linearly along `slope`."""

    tint: tuple[float, float, float]
    slope: tuple[float, float]


@dataclass(frozen=True)
class Cameo:
    """An object that is there only in frames `start` .. `stop` - 1."""

    placed: Placed
    start: int
    stop: int


@dataclass(frozen=True)
class Story:
    """Everything that decides the pixels of one video, sensor noise excepted.

    `main` is the main object at the centre of its path; `brightness` has one gain per frame.
    """

    main: Placed
    motion: str
    phase: float
    cameos: tuple[Cameo, ...]
    light: str
    backdrop: Backdrop
    brightness: tuple[float, ...]

    def at(self, frame: int) -> list[Placed]:
        """The objects visible in a frame, the main object first."""
        swing = 0.2 * math.sin(2 * math.pi * (frame / N_FRAMES) + self.phase)
        dx = swing if self.motion == "sideways" else 0.0
        dy = swing if self.motion == "vertical" else 0.0
        main = Placed(self.main.thing, self.main.x + dx, self.main.y + dy, self.main.radius)
        return [main, *(c.placed for c in self.cameos if c.start <= frame < c.stop)]


def draw_thing(rng: np.random.Generator, colour: str) -> Thing:
    """A thing of the given colour with every other attribute uniform."""
    return Thing(
        colour=colour,
        shape=SHAPES[rng.integers(len(SHAPES))],
        size=("small", "large")[rng.integers(2)],
        striped=bool(rng.integers(2)),
    )


def draw_colours(rng: np.random.Generator, n: int) -> list[str]:
    """`n` different colours; within one image or video a colour names one object."""
    return [list(COLOURS)[i] for i in rng.permutation(len(COLOURS))[:n]]


def draw_radius(rng: np.random.Generator, thing: Thing) -> float:
    """The nominal radius of the thing's size, jittered by up to 10 %."""
    return RADII[thing.size] * rng.uniform(0.9, 1.1)


def draw_backdrop(rng: np.random.Generator) -> Backdrop:
    """A random dark background."""
    red, green, blue = rng.uniform(15, 45, size=3)
    dx, dy = rng.uniform(-20, 20, size=2)
    return Backdrop((red, green, blue), (dx, dy))


def draw_story(rng: np.random.Generator) -> Story:
    """A random video: one object all the time, one (40 %) or two (60 %) cameos at corners."""
    n_cameos = 1 + int(rng.random() < 0.6)
    colours = draw_colours(rng, 1 + n_cameos)
    thing = draw_thing(rng, colours[0])
    x, y = rng.uniform(0.42, 0.58, size=2)
    main = Placed(thing, float(x), float(y), draw_radius(rng, thing))
    length = round(CAMEO_SHARE * N_FRAMES)
    # Sorted draws from the free frames, each pushed behind the cameos before it: disjoint slots.
    gaps = np.sort(rng.integers(0, N_FRAMES - n_cameos * length + 1, size=n_cameos))
    cameos = []
    for number, (colour, gap) in enumerate(zip(colours[1:], gaps, strict=True)):
        thing = draw_thing(rng, colour)
        x, y = (0.2 + 0.6 * int(corner) for corner in rng.integers(0, 2, size=2))
        start = int(gap) + number * length
        cameos.append(Cameo(Placed(thing, x, y, draw_radius(rng, thing)), start, start + length))
    dark = rng.random(N_FRAMES) < DARK_FRAMES
    gains = np.where(
        dark, rng.uniform(0.18, 0.35, size=N_FRAMES), rng.uniform(0.75, 1.05, size=N_FRAMES)
    )
    return Story(
        main=main,
        motion=MOTIONS[rng.integers(len(MOTIONS))],
        phase=float(rng.uniform(0, 2 * math.pi)),
        cameos=tuple(cameos),
        light=list(LIGHTS)[rng.integers(len(LIGHTS))],
        backdrop=draw_backdrop(rng),
        brightness=tuple(gains.tolist()),
    )


def draw_still(
    rng: np.random.Generator, colours: tuple[str, str] | None = None
) -> tuple[list[Placed], Backdrop]:
    """A pretraining image: no (2 %), one (50 %) or two (48 %) things anywhere.

    With `colours`, the things take their colours from these two only (hard negatives).
    """
    count = int(rng.choice(3, p=(0.02, 0.5, 0.48)))
    pool = draw_colours(rng, 2) if colours is None else [colours[i] for i in rng.permutation(2)]
    placed: list[Placed] = []
    for colour in pool[:count]:
        thing = draw_thing(rng, colour)
        radius = draw_radius(rng, thing)
        for _ in range(20):  # a few tries to keep two things apart; a little overlap is harmless
            x, y = rng.uniform(0.2, 0.8, size=2)
            if all(math.hypot(x - p.x, y - p.y) * SIZE > radius + p.radius for p in placed):
                break
        placed.append(Placed(thing, float(x), float(y), radius))
    return placed, draw_backdrop(rng)
