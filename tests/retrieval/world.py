"""Random features: repeated captions and videos, videos with many captions or none."""

from __future__ import annotations

from typing import NamedTuple

import hypothesis.strategies as st
import numpy as np

from discovla.retrieval.metrics import Array


class World(NamedTuple):
    text: Array
    video: Array
    truth: Array
    bank: Array


def unit(generator: np.random.Generator, count: int, width: int = 16) -> Array:
    features = generator.normal(size=(count, width))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features.astype(np.float32)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    generator = np.random.default_rng(draw(st.integers(0, 10_000)))
    n_texts, n_videos = draw(st.integers(1, 30)), draw(st.integers(1, 15))
    distinct = draw(st.integers(1, n_texts)), draw(st.integers(1, n_videos))
    text = unit(generator, distinct[0])[generator.integers(0, distinct[0], n_texts)]
    video = unit(generator, distinct[1])[generator.integers(0, distinct[1], n_videos)]
    captioned = generator.permutation(n_videos)[: draw(st.integers(1, n_videos))]
    bank = unit(generator, draw(st.integers(1, 20)))
    return World(text, video, captioned[generator.integers(0, len(captioned), n_texts)], bank)


sizes = st.tuples(st.integers(1, 40), st.integers(1, 300))
"""Captions and scores of a tile."""
