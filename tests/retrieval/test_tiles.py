"""Tiles: every pair of features once, groups never torn, sizes kept."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings

from discovla.retrieval.metrics import Array
from discovla.retrieval.tiles import FeatureScores, MatrixScores, Side, Tiles, first_equal
from tests.retrieval.whole import similarity
from tests.retrieval.world import World, sizes, unit, worlds

unhurried = settings(deadline=None)  # other work may share the machine


def expanded(tile: Array, captions: Side, videos: Side) -> Array:
    for axis, side in enumerate((captions, videos)):
        if side.place is not None:
            tile = tile.take(side.place, axis)
    return tile


@unhurried
@given(worlds(), sizes)
def test_a_walk_meets_every_caption_with_every_video_once(
    world: World, size: tuple[int, int]
) -> None:
    tiles = Tiles(FeatureScores(world.text, world.video), world.truth, *size)
    seen = np.full(tiles.shape, np.nan, np.float32)
    products = set()
    for captions, videos, tile in tiles.walk():
        at = np.ix_(captions.members, videos.members)
        assert np.isnan(seen[at]).all()
        seen[at] = expanded(tile, captions, videos)
        pairs = {(r, c) for r in captions.lines.tolist() for c in videos.lines.tolist()}
        assert len(pairs) == tile.size
        assert not products & pairs, "a product of two features was computed twice"
        products |= pairs
    np.testing.assert_allclose(seen, world.text @ world.video.T, atol=1e-6)


@unhurried
@given(worlds(), sizes)
def test_captions_of_a_video_and_equal_captions_stay_together(
    world: World, size: tuple[int, int]
) -> None:
    tiles = Tiles(FeatureScores(world.text, world.video), world.truth, *size)
    block = np.empty(len(world.text), int)
    for number, captions in enumerate(tiles.captions):
        block[captions.members] = number
        truth = world.truth[captions.members]
        starts = [i for i in range(len(truth)) if i == 0 or truth[i] != truth[i - 1]]
        assert captions.starts.tolist() == starts
        assert len(starts) == len(set(truth.tolist()))
    for i in range(len(block)):
        for j in range(i):
            if world.truth[i] == world.truth[j] or (world.text[i] == world.text[j]).all():
                assert block[i] == block[j]


def test_tiles_are_as_small_as_asked_and_near_the_diagonal() -> None:
    generator = np.random.default_rng(0)
    truth = generator.permutation(900)
    tiles = Tiles(FeatureScores(unit(generator, 900), unit(generator, 900)), truth, 64, 64 * 50)
    assert {len(captions.members) for captions in tiles.captions} <= {64, 900 % 64}
    assert max(tile.size for _, _, tile in tiles.walk()) <= 64 * 50
    with_own = 0
    for captions in tiles.captions:
        columns = tiles.columns(captions)
        with_own += len(set(columns.block_of[truth[captions.members]].tolist()))
    assert with_own <= 2 * 15 + 18  # of 15 * 18 tiles


def test_a_matrix_in_order_is_not_copied() -> None:
    scores = np.random.default_rng(0).normal(size=(40, 40))
    tiles = Tiles(MatrixScores(scores), np.arange(40), 8, 8 * 16)
    assert all(np.shares_memory(tile, scores) for _, _, tile in tiles.walk())


@unhurried
@given(worlds())
def test_equal_rows_have_the_number_of_the_first(world: World) -> None:
    naive = [
        next(j for j in range(i + 1) if (world.text[i] == world.text[j]).all())
        for i in range(len(world.text))
    ]
    assert first_equal(world.text).tolist() == naive


def test_the_sign_of_zero_does_not_matter() -> None:
    rows = np.array([[0.0, 1.0], [-0.0, 1.0], [1.0, 0.0]], np.float32)
    assert first_equal(rows).tolist() == [0, 0, 2]


def test_equal_features_give_equal_scores() -> None:
    generator = np.random.default_rng(11)
    text, video = unit(generator, 203, 96), unit(generator, 67, 96)
    text[202], video[66] = text[0], video[0]
    scores = similarity(text, video)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores[202], scores[0])
    np.testing.assert_array_equal(scores[:, 66], scores[:, 0])
    np.testing.assert_allclose(scores, text @ video.T, atol=1e-6)
