"""Pixels of the demo world: anti-aliased shapes on a dark gradient, then light, then noise."""

from __future__ import annotations

import numpy as np

from discovla.demo.scene import COLOURS, LIGHTS, N_FRAMES, SIZE, Backdrop, Placed, Story

VIDEO_NOISE = 6.0
STILL_NOISE = 4.0
STRIPE_PERIOD = 7.0
STRIPE_LEVEL = 0.25

_Y, _X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) + 0.5


def _distance(shape: str, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Signed distance to the outline in pixels, negative inside (exact near the outline)."""
    across, along = np.minimum(np.abs(x), np.abs(y)), np.maximum(np.abs(x), np.abs(y))
    if shape == "circle":
        return np.hypot(x, y) - radius
    if shape == "square":
        return along - 0.87 * radius
    if shape == "cross":
        return np.maximum(across - 0.32 * radius, along - radius)
    return np.abs(np.hypot(x, y) - 0.75 * radius) - 0.25 * radius


def _paint(canvas: np.ndarray, placed: Placed) -> None:
    x, y = _X - placed.x * SIZE, _Y - placed.y * SIZE
    thing = placed.thing
    cover = np.clip(0.5 - _distance(thing.shape, x, y, placed.radius), 0, 1)[..., None]
    colour = np.broadcast_to(np.asarray(COLOURS[thing.colour], np.float32), canvas.shape)
    if thing.striped:
        dark = np.mod(_X + _Y, STRIPE_PERIOD) < STRIPE_PERIOD / 2
        colour = np.where(dark[..., None], STRIPE_LEVEL * colour, colour)
    canvas += cover * (colour - canvas)


def render_image(
    placed: list[Placed],
    backdrop: Backdrop,
    rng: np.random.Generator,
    *,
    light: str = "day",
    brightness: float = 1.0,
    noise: float = STILL_NOISE,
) -> np.ndarray:
    """Draw things on a backdrop.

    Args:
        placed: things in drawing order; later ones cover earlier ones.
        backdrop: the background.
        rng: source of the sensor noise.
        light: a key of `LIGHTS`, applied to the whole image.
        brightness: gain of the frame after the light.
        noise: standard deviation of the sensor noise, grey levels.

    Returns:
        uint8 RGB, shape (64, 64, 3).
    """
    slope = backdrop.slope[0] * (_X / SIZE - 0.5) + backdrop.slope[1] * (_Y / SIZE - 0.5)
    canvas = np.asarray(backdrop.tint, np.float32) + slope[..., None]
    for item in placed:
        _paint(canvas, item)
    gain, offset = LIGHTS[light]
    canvas = (canvas * np.asarray(gain, np.float32) + offset) * brightness
    canvas += noise * rng.standard_normal(canvas.shape, dtype=np.float32)
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def render_frame(story: Story, frame: int, rng: np.random.Generator) -> np.ndarray:
    """One frame of a video as uint8 RGB, shape (64, 64, 3)."""
    return render_image(
        story.at(frame),
        story.backdrop,
        rng,
        light=story.light,
        brightness=story.brightness[frame],
        noise=VIDEO_NOISE,
    )


def render_story(story: Story, rng: np.random.Generator) -> np.ndarray:
    """All frames of a video as uint8 RGB, shape (24, 64, 64, 3)."""
    return np.stack([render_frame(story, frame, rng) for frame in range(N_FRAMES)])
