"""Auxiliary targets of the pretraining: which pairs of attributes an image shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from discovla.demo.scene import COLOURS, RADII, SHAPES, Placed

_N = len(COLOURS)
N_TARGETS = _N * len(SHAPES) + _N * 2 + _N * len(RADII)
"""28 colour x shape, 14 colour x texture, 14 colour x size."""


def attribute_targets(placed: Sequence[Placed]) -> np.ndarray:
    """Multi-hot float32 vector of length `N_TARGETS`."""
    target = np.zeros(N_TARGETS, np.float32)
    for thing in (item.thing for item in placed):
        colour = list(COLOURS).index(thing.colour)
        target[colour * len(SHAPES) + SHAPES.index(thing.shape)] = 1
        texture = _N * len(SHAPES) + 2 * colour
        target[texture + int(thing.striped)] = 1
        target[texture + 2 * _N + list(RADII).index(thing.size)] = 1
    return target
