"""Counting tile by tile: the same standings as from a whole matrix, whatever the tiles are."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from discovla.retrieval.counting import Plain, Rescoring, standing, standings
from discovla.retrieval.metrics import DIRECTIONS, Array, Standing
from discovla.retrieval.postprocess import DSL, QBNorm, bank_statistics, feature_blocks
from discovla.retrieval.tiles import FeatureScores, MatrixScores, Tiles
from tests.retrieval.test_metrics import matrices
from tests.retrieval.whole import dsl, qbnorm, similarity
from tests.retrieval.world import World, sizes, unit, worlds

unhurried = settings(deadline=None)  # other work may share the machine
TEMPERATURE, BETA = 0.05, 20.0


def same(found: Standing, expected: Standing) -> None:
    np.testing.assert_array_equal(found.above, expected.above)
    np.testing.assert_array_equal(found.equal, expected.equal)


def naive(scores: Array, truth: Array, direction: str) -> Standing:
    """Of the whole matrix, one query at a time."""
    if direction == "t2v":
        rows = [(row, row[video]) for row, video in zip(scores, truth, strict=True)]
    else:
        captioned = sorted(set(truth.tolist()))
        rows = []
        for video in captioned:
            best = np.array([scores[truth == other, video].max() for other in captioned])
            rows.append((best, best[captioned.index(video)]))
    above = [np.count_nonzero(row > own) for row, own in rows]
    equal = [np.count_nonzero(row == own) - 1 for row, own in rows]
    return Standing(np.array(above), np.array(equal))


@unhurried
@given(matrices(), st.sampled_from(DIRECTIONS), sizes)
def test_the_size_of_tiles_changes_nothing(
    case: tuple[Array, Array], direction: Any, size: tuple[int, int]
) -> None:
    scores, truth = case
    found = standings(Tiles(MatrixScores(scores), truth, *size), Plain(direction))
    assert list(found) == [direction]
    same(found[direction], naive(scores, truth, direction))
    same(standing(scores, truth, direction), naive(scores, truth, direction))


def rescored(world: World, post: str) -> tuple[Rescoring, dict[str, Array]]:
    """A way to re-score features tile by tile, and what it gives on the whole matrix."""
    scores = similarity(world.text, world.video)
    if post == "none":
        return Plain(*DIRECTIONS), {"t2v": scores, "v2t": scores}
    if post == "dsl":
        whole = {"t2v": dsl(scores, TEMPERATURE, 0), "v2t": dsl(scores, TEMPERATURE, 1)}
        return DSL(scores.shape, TEMPERATURE), whole  # type: ignore[arg-type]
    bank = bank_statistics(feature_blocks(world.bank, world.video, 3), len(world.video), BETA)
    whole_bank = similarity(world.bank, world.video)
    return (
        QBNorm(scores.shape, {"t2v": bank}),  # type: ignore[arg-type]
        {"t2v": qbnorm(scores, whole_bank, beta=BETA).scores},
    )


@unhurried
@given(worlds(), sizes, st.sampled_from(["none", "dsl", "qbnorm"]))
def test_streamed_features_stand_as_in_the_whole_matrix(
    world: World, size: tuple[int, int], post: str
) -> None:
    way, whole = rescored(world, post)
    tiles = Tiles(FeatureScores(world.text, world.video), world.truth, *size)
    found = standings(tiles, way)
    assert found.keys() == whole.keys()
    for direction, scores in whole.items():
        same(found[direction], naive(scores, world.truth, direction))  # type: ignore[index]


@pytest.mark.parametrize("post", ["none", "dsl", "qbnorm"])
def test_repeated_captions_tie_wherever_they_fall(post: str) -> None:
    """Widths at which BLAS has edges; the equal captions and videos lie in different tiles."""
    generator = np.random.default_rng(3)
    text, video = unit(generator, 203, 96), unit(generator, 203, 96)
    text[202], text[101], video[150] = text[0], text[0], video[4]
    world = World(text, video, np.arange(203), unit(generator, 50, 96))
    way, _ = rescored(world, post)
    found = standings(Tiles(FeatureScores(text, video), world.truth, 17, 17 * 19), way)
    assert (found["t2v"].equal > 0).nonzero()[0].tolist() == [4, 150]
    if post != "qbnorm":
        assert (found["v2t"].equal > 0).nonzero()[0].tolist() == [0, 101, 202]
        assert found["v2t"].equal[0] == 2


def test_a_set_of_one_feature_ties_everywhere_in_little_memory() -> None:
    text, video = np.ones((2, 500, 1), np.float32)
    tiles = Tiles(FeatureScores(text, video), np.arange(500), 50, 1000)
    found = standings(tiles, Plain(*DIRECTIONS))
    for direction in DIRECTIONS:
        assert (found[direction].above == 0).all()
        assert (found[direction].equal == 499).all()
    assert tiles.room(tiles.captions[0]) == 2


def test_each_product_is_formed_about_once() -> None:
    class Counted(FeatureScores):
        products = 0

        def tile(self, rows: Array, columns: Array) -> Array:
            self.products += len(rows) * len(columns)
            return super().tile(rows, columns)

    generator = np.random.default_rng(0)
    source = Counted(unit(generator, 1000), unit(generator, 1000))
    found = standings(Tiles(source, np.arange(1000), 32, 32 * 32), Plain(*DIRECTIONS))
    assert set(found) == {"t2v", "v2t"}
    assert source.products < 1.1 * 1000**2


def test_a_given_matrix_is_left_as_it_is() -> None:
    scores = np.random.default_rng(1).normal(size=(30, 20))
    scores.setflags(write=False)
    truth = np.random.default_rng(2).integers(0, 20, 30)
    for direction in DIRECTIONS:
        same(standing(scores, truth, direction), naive(scores, truth, direction))
