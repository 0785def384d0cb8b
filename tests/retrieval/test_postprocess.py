"""DSL and QB-Norm: naive definitions, published references, streaming, invariances."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as nps
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given, settings
from scipy.special import logsumexp, softmax

from discovla.errors import UserError
from discovla.retrieval.counting import standing
from discovla.retrieval.metrics import Array
from discovla.retrieval.postprocess import bank_statistics, feature_blocks, matrix_blocks
from tests.retrieval.whole import dsl, qbnorm

CASES = (1, 2)
unhurried = settings(deadline=None)  # other work may share the machine
cosines = st.floats(-1, 1, width=32)


def matrix(rows: st.SearchStrategy[int], columns: st.SearchStrategy[int]) -> Any:
    shape = st.tuples(rows, columns)
    return nps.arrays(np.float32, shape, elements=cosines)


small = matrix(st.integers(1, 8), st.integers(1, 6))


@st.composite
def queries_and_bank(draw: st.DrawFn) -> tuple[Array, Array]:
    columns = draw(st.integers(1, 6))
    return (
        draw(matrix(st.integers(1, 8), st.just(columns))),
        draw(matrix(st.integers(1, 12), st.just(columns))),
    )


def inverted_softmax(result: Any, beta: float) -> Array:
    """The published form: exp(beta s) / sum exp(beta s_bank) in normalised rows, raw in others."""
    scores = result.scores.copy()
    scores[result.normalised] = np.exp(beta * scores[result.normalised])
    return scores


# DSL


@pytest.mark.parametrize("case", CASES)
def test_dsl_agrees_with_the_references(case: int, shared: Callable[[str], Path]) -> None:
    arrays = np.load(shared(f"postprocess/dsl_case{case}.npz"))
    sims = arrays["sims"]
    n_texts, n_videos = sims.shape
    for i, temperature in enumerate(arrays["temperatures"]):
        forward, backward = dsl(sims, temperature, 0), dsl(sims, temperature, 1)
        np.testing.assert_allclose(forward, arrays["t2v_plain"][i], rtol=1e-12)
        np.testing.assert_allclose(forward * n_texts, arrays["t2v_times_n"][i], rtol=1e-12)
        np.testing.assert_allclose(backward.T * n_videos, arrays["v2t_times_n"][i], rtol=1e-12)


@unhurried
@given(small, st.sampled_from([0, 1]), st.sampled_from([0.01, 0.1, 1.0]))
def test_dsl_is_score_times_softmax_over_the_queries(
    sim: Array, axis: int, temperature: float
) -> None:
    exact = sim.astype(np.float64)
    expected = exact * softmax(exact / temperature, axis=axis)
    np.testing.assert_allclose(dsl(sim, temperature, axis), expected, rtol=1e-12, atol=1e-300)


@unhurried
@given(small, st.floats(0.005, 2))
def test_dsl_of_the_other_direction_is_dsl_of_the_transpose(sim: Array, temperature: float) -> None:
    np.testing.assert_allclose(
        dsl(sim, temperature, 1), dsl(sim.T, temperature, 0).T, rtol=1e-12, atol=1e-300
    )


@unhurried
@given(st.integers(2, 8), st.integers(0, 1000), st.floats(0.01, 2))
def test_a_transposed_dsl_matrix_changes_no_rank(n: int, seed: int, temperature: float) -> None:
    """The trick of some codes: within a column the normaliser is constant."""
    sim = np.random.default_rng(seed).uniform(0.01, 1, (n, n))
    truth = np.arange(n)
    raw, trick = (standing(m, truth, "v2t") for m in (sim, dsl(sim, temperature, 0)))
    np.testing.assert_array_equal(raw.above, trick.above)


@unhurried
@given(small, st.floats(0.01, 1), st.floats(1, 200))
def test_dsl_on_logits_is_dsl_on_cosine_with_the_temperature_scaled(
    sim: Array, temperature: float, scale: float
) -> None:
    exact = sim.astype(np.float64)
    on_logits = dsl(exact * scale, temperature * scale, 0) / scale
    np.testing.assert_allclose(on_logits, dsl(exact, temperature, 0), rtol=1e-9, atol=1e-300)


def test_dsl_keeps_the_ties_of_repeated_captions() -> None:
    sim = np.random.default_rng(0).uniform(-0.2, 0.4, (60, 60)).astype(np.float32)
    sim[1] = sim[0]
    sim[:, 31] = sim[:, 30]
    for axis in (0, 1):
        scores = dsl(sim, 0.01, axis)
        np.testing.assert_array_equal(scores[0], scores[1])
        np.testing.assert_array_equal(scores[:, 30], scores[:, 31])


# QB-Norm


@pytest.mark.parametrize("case", CASES)
def test_qbnorm_agrees_with_the_official_code(case: int, shared: Callable[[str], Path]) -> None:
    arrays = np.load(shared(f"postprocess/qbnorm_case{case}.npz"))
    for i, beta in enumerate(arrays["betas"]):
        for j, k in enumerate(arrays["ks"]):
            found = qbnorm(arrays["test_sims"], arrays["bank_sims"], beta=beta, k=int(k))
            np.testing.assert_array_equal(found.active, arrays["activation_set"][j])
            np.testing.assert_array_equal(found.normalised, arrays["rows_normalised"][j])
            expected = arrays["expected"][i, j]
            np.testing.assert_allclose(inverted_softmax(found, beta), expected, rtol=1e-9, atol=0)
            np.testing.assert_array_equal(
                np.argsort(found.scores, axis=1), np.argsort(expected, axis=1)
            )


@pytest.mark.parametrize("case", CASES)
def test_theta_agrees_with_its_authors_code(case: int, shared: Callable[[str], Path]) -> None:
    arrays = np.load(shared(f"postprocess/qbnorm_case{case}.npz"))
    for i, beta in enumerate(arrays["betas"]):
        for j, theta in enumerate(arrays["thetas"]):
            found = qbnorm(arrays["test_sims"], arrays["bank_sims"], beta=beta, theta=int(theta))
            expected = arrays["expected_theta_k1"][i, j]
            np.testing.assert_allclose(inverted_softmax(found, beta), expected, rtol=1e-9, atol=0)


@unhurried
@given(queries_and_bank(), st.floats(0.5, 60), st.integers(1, 3), st.integers(1, 4))
def test_qbnorm_follows_the_definition(
    case: tuple[Array, Array], beta: float, k: int, theta: int
) -> None:
    """One bank query, one item and one row at a time; items that tie with the k-th best count."""
    sim, bank = case
    assume(k <= sim.shape[1])
    hits = [0] * sim.shape[1]
    for row in bank:
        for item, score in enumerate(row):
            hits[item] += sum(other > score for other in row) < k
    active = [count >= theta for count in hits]
    expected = sim.astype(np.float64)
    for i, row in enumerate(sim):
        if any(active[item] for item in range(len(row)) if row[item] == max(row)):
            expected[i] -= logsumexp(beta * bank.astype(np.float64), axis=0) / beta
    found = qbnorm(sim, bank, beta=beta, k=k, theta=theta)
    np.testing.assert_array_equal(found.active, active)
    np.testing.assert_allclose(found.scores, expected, rtol=1e-12, atol=1e-12)


@unhurried
@given(queries_and_bank(), st.integers(1, 13))
def test_a_bank_in_blocks_is_the_whole_bank(case: tuple[Array, Array], block: int) -> None:
    sim, bank = case
    whole = qbnorm(sim, bank, beta=50.0)
    parts = qbnorm(sim, matrix_blocks(bank, block), beta=50.0)
    np.testing.assert_allclose(parts.scores, whole.scores, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(parts.active, whole.active)
    assert parts.bank_queries == whole.bank_queries == len(bank)


@unhurried
@given(queries_and_bank(), st.randoms())
def test_order_of_queries_bank_and_gallery_changes_nothing(
    case: tuple[Array, Array], random: Any
) -> None:
    sim, bank = case
    orders = [list(range(n)) for n in (len(sim), len(bank), sim.shape[1])]
    for order in orders:
        random.shuffle(order)
    queries, banks, items = orders
    moved = qbnorm(sim[np.ix_(queries, items)], bank[np.ix_(banks, items)], beta=20.0)
    plain = qbnorm(sim, bank, beta=20.0)
    np.testing.assert_array_equal(moved.normalised, plain.normalised[queries])
    np.testing.assert_allclose(
        moved.scores, plain.scores[np.ix_(queries, items)], rtol=1e-12, atol=1e-12
    )


def test_features_of_a_bank_are_the_bank() -> None:
    generator = np.random.default_rng(3)
    bank, gallery = generator.normal(size=(50, 8)), generator.normal(size=(7, 8))
    streamed = bank_statistics(feature_blocks(bank, gallery, block=9), 7, 2.0, k=2)
    whole = bank_statistics([bank @ gallery.T], 7, 2.0, k=2)
    np.testing.assert_allclose(streamed.penalty, whole.penalty, rtol=1e-12)
    np.testing.assert_array_equal(streamed.hits, whole.hits)
    assert streamed.queries == whole.queries == 50


def test_large_scores_do_not_overflow() -> None:
    """β 20 on logits in float32 loses most rows in the exponential form."""
    generator = np.random.default_rng(1)
    sim = generator.uniform(-10, 45, (6, 5)).astype(np.float32)
    bank = generator.uniform(-10, 45, (30, 5)).astype(np.float32)
    with np.errstate(over="ignore"):
        assert np.isinf(np.exp(20 * sim)).any()
    assert np.isfinite(qbnorm(sim, bank, beta=20.0).scores).all()


def test_arguments_are_not_changed() -> None:
    generator = np.random.default_rng(2)
    sim, bank = generator.uniform(size=(4, 3)), generator.uniform(size=(9, 3))
    for array in (sim, bank):
        array.setflags(write=False)
    result = qbnorm(sim, bank, beta=50.0)
    assert result.normalised.any()
    assert not np.shares_memory(result.scores, sim)
    assert not np.shares_memory(dsl(sim, 0.01, 0), sim)


@pytest.mark.parametrize(
    ("bank", "options", "message"),
    [
        (np.zeros((5, 4)), {"beta": 1.0}, r"shape \(5, 4\), but the gallery has 3 items"),
        (np.zeros((0, 3)), {"beta": 1.0}, r"shape \(0, 3\)"),
        ([], {"beta": 1.0}, "it is empty"),
        (np.full((5, 3), np.nan), {"beta": 1.0}, "bank, rows from 0: 5 of 5 rows hold NaN"),
        (np.zeros((5, 3)), {"beta": 0.0}, "beta > 0"),
        (np.zeros((5, 3)), {"beta": 1.0, "k": 4}, "k is 4, but the gallery has only 3"),
        (np.zeros((5, 3)), {"beta": 1.0, "theta": 0}, "theta is 0; it must be 1 or more"),
    ],
)
def test_what_cannot_be_a_bank_is_refused(bank: Any, options: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        qbnorm(np.eye(3), bank, **options)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_must_be_positive(temperature: float) -> None:
    with pytest.raises(UserError, match="must be above 0"):
        dsl(np.eye(3), temperature, 0)
