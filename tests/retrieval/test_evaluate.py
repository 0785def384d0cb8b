"""Matrices and features files → the metrics object: fields, units, banks, refusals."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from discovla.config import load_yaml
from discovla.errors import UserError
from discovla.retrieval.counting import standing
from discovla.retrieval.evaluate import (
    PARAMETERS,
    evaluate_features,
    evaluate_matrix,
    resolve_parameters,
)
from discovla.retrieval.metrics import Array, summarise
from tests.retrieval.whole import dsl, qbnorm, similarity

SCALE = 100.0
SCORES = ["R@1", "R@5", "R@10", "R@sum", "MdR", "MnR"]


def unit(generator: np.random.Generator, n: int, width: int = 16) -> Array:
    features = generator.normal(size=(n, width))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features.astype(np.float32)


@pytest.fixture(scope="module")
def world() -> dict[str, Array]:
    """30 videos, 30 captions near them (two of them equal), a bank of 200 captions."""
    generator = np.random.default_rng(5)
    video = unit(generator, 30)
    text = video + 0.8 * unit(generator, 30)
    text[7] = text[3]
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    return {"video": video, "text": text.astype(np.float32), "bank": unit(generator, 200)}


@pytest.fixture(scope="module")
def sim(world: dict[str, Array]) -> Array:
    return similarity(world["text"], world["video"])


def metadata(**changes: str) -> dict[str, str]:
    known = {
        **{"run_id": "discovla-demo-clip-0123456789", "seed": "42", "split": "test"},
        **{"schema": "1", "data_id": "abcdef0123", "annotations_id": "9876543210"},
        **{"dataset": "demo", "step": "150", "selection": "last", "dtype": "fp32"},
        **{
            "excluded": '["--video", "ü/../x"]',
            "reader": "pyav",
            "stored": "raw",
            "parameters": "22808",
        },
    }
    return known | changes


@pytest.fixture
def files(tmp_path: Path, world: dict[str, Array]) -> dict[str, Path]:
    paths = {name: tmp_path / f"features.{name}.safetensors" for name in ("test", "bank")}
    tensors = {"text": world["text"], "video": world["video"]}
    tensors |= {"truth": np.arange(30), "logit_scale": np.array(SCALE, np.float32)}
    save_file(tensors, paths["test"], metadata=metadata())
    save_file({"text": world["bank"]}, paths["bank"], metadata=metadata(split="bank"))
    return paths


# Matrices


def test_plain_metrics_are_those_of_both_directions(sim: Array) -> None:
    found = evaluate_matrix(sim)
    truth = np.arange(30)
    assert list(found) == [
        *("schema", "n_queries_t2v", "n_queries_v2t", "post", "ties", "t2v", "v2t", "released")
    ]
    assert list(found["t2v"]) == list(found["v2t"]) == SCORES
    for direction in ("t2v", "v2t"):
        counted = standing(sim, truth, direction)  # type: ignore[arg-type]
        assert found[direction] == summarise(counted)
        assert found["released"][direction] == summarise(counted, "popular")
    assert found["n_queries_t2v"] == found["n_queries_v2t"] == 30
    assert found["ties"] == {"rule": "average", "t2v": 0, "v2t": 2}
    plain = [("name", "none"), ("params", {}), ("units", None), ("transductive", False)]
    assert list(found["post"].items()) == plain
    json.dumps(found, allow_nan=False)


def test_the_released_rule_is_shown_only_where_targets_tie() -> None:
    assert "released" not in evaluate_matrix(np.eye(4))
    assert "released" in evaluate_matrix(np.ones((4, 4)))


@pytest.mark.parametrize("ties", ["optimistic", "pessimistic", "popular"])
def test_the_named_rule_for_ties_is_used(sim: Array, ties: Any) -> None:
    found = evaluate_matrix(sim, ties=ties)
    assert found["ties"]["rule"] == ties
    assert found["v2t"] == summarise(standing(sim, np.arange(30), "v2t"), ties)


def test_dsl_is_done_for_each_direction(sim: Array) -> None:
    found = evaluate_matrix(sim, post="dsl", logit_scale=SCALE)
    truth = np.arange(30)
    assert found["t2v"] == summarise(standing(dsl(sim, 0.01, 0), truth, "t2v"))
    assert found["v2t"] == summarise(standing(dsl(sim, 0.01, 1), truth, "v2t"))
    assert found["v2t"] != evaluate_matrix(sim)["v2t"]
    assert found["post"] == {
        **{"name": "dsl", "params": {"temperature": 0.01}, "units": "cosine"},
        "transductive": True,
    }


def test_qbnorm_has_no_v2t_without_a_bank_of_videos(world: dict[str, Array], sim: Array) -> None:
    bank = world["bank"] @ world["video"].T
    found = evaluate_matrix(sim, post="qbnorm", bank=bank)
    expected = qbnorm(sim, bank, beta=50.0)
    assert found["t2v"] == summarise(standing(expected.scores, np.arange(30), "t2v"))
    assert found["v2t"] is found["n_queries_v2t"] is found["ties"]["v2t"] is None
    assert found["post"]["params"] == {"beta": 50, "k": 1, "theta": 1}
    assert found["post"]["bank"] == {
        "t2v": {
            "queries": 200,
            "active_items": int(expected.active.sum()),
            "normalised_queries": int(expected.normalised.sum()),
        },
        "v2t": None,
    }
    json.dumps(found, allow_nan=False)


def test_a_bank_of_videos_gives_qbnorm_its_v2t(world: dict[str, Array], sim: Array) -> None:
    bank, video_bank = world["bank"] @ world["video"].T, world["bank"] @ world["text"].T
    found = evaluate_matrix(sim, post="qbnorm", bank=bank, video_bank=video_bank)
    expected = qbnorm(sim.T, video_bank, beta=50.0).scores
    assert found["v2t"] == summarise(standing(expected, np.arange(30), "t2v"))


@pytest.mark.parametrize(
    ("post", "options"),
    [("dsl", {}), ("dsl", {"temperature": 0.05}), ("qbnorm", {}), ("qbnorm", {"beta": 20.0})],
)
def test_logits_and_cosines_give_the_same(
    world: dict[str, Array], sim: Array, post: Any, options: dict[str, Any]
) -> None:
    """A scale of 128 changes no digit, so that the metrics agree exactly."""
    bank = world["bank"] @ world["video"].T
    banks: Any = ({"bank": bank}, {"bank": bank * 128}) if post == "qbnorm" else ({}, {})
    cosine = evaluate_matrix(sim, post=post, logit_scale=128.0, **banks[0], **options)
    logits = evaluate_matrix(
        sim * 128,
        post=post,
        units="logits",
        logit_scale=128.0,
        **banks[1],
        **options,
    )
    assert cosine == logits


def test_several_captions_per_video_and_a_video_without_one() -> None:
    sim = np.array([[0.9, 0.1, 0.2], [0.3, 0.2, 0.8], [0.1, 0.5, 0.4]])
    found = evaluate_matrix(sim, truth=np.array([0, 0, 2]))
    assert (found["n_queries_t2v"], found["n_queries_v2t"]) == (3, 2)
    assert found["t2v"]["R@1"] == pytest.approx(100 / 3)
    assert found["t2v"]["MnR"] == pytest.approx((1 + 2 + 2) / 3)
    assert found["v2t"]["R@1"] == 50
    assert found["v2t"]["MnR"] == 1.5


def test_units_that_cannot_be_are_warned_of(sim: Array, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        evaluate_matrix(sim, post="dsl", logit_scale=SCALE)
        assert not caplog.records
        evaluate_matrix(sim * 100, post="dsl", logit_scale=SCALE)
        evaluate_matrix(sim, post="dsl", units="logits", logit_scale=SCALE)
    assert "cannot be cosines" in caplog.messages[0]
    assert "are they cosines already?" in caplog.messages[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"post": "csls"}, "'csls'; allowed: none, dsl, qbnorm"),
        ({"units": "degrees"}, "allowed: cosine, logits"),
        ({"ties": "best"}, "allowed: average, optimistic"),
        ({"post": "dsl"}, "give a temperature, or the logit scale"),
        ({"post": "dsl", "units": "logits", "temperature": 0.01}, "give the logit scale"),
        ({"post": "dsl", "temperature": 1.0, "beta": 3.0}, "no parameter beta; it has: temper"),
        ({"beta": 3.0}, "post 'none' has no parameter beta; it has: none"),
        ({"post": "dsl", "logit_scale": -1.0}, "logit scale -1.0"),
        ({"post": "qbnorm"}, "needs a bank"),
        ({"post": "qbnorm", "bank": np.eye(3), "k": 1.5}, "k is 1.5; a whole number"),
        ({"post": "dsl", "logit_scale": 1.0, "bank": np.eye(3)}, "takes no bank"),
        ({"post": "qbnorm", "bank": np.zeros((4, 2))}, "gallery has 3 items"),
    ],
)
def test_options_that_contradict_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        evaluate_matrix(np.eye(3), **options)


def test_defaults_are_those_of_the_workflow() -> None:
    post = load_yaml("config/defaults.yaml")["post"]
    assert {name: PARAMETERS[name] for name in post} == post  # type: ignore[index]
    assert resolve_parameters("dsl", "cosine", 50.0, {}) == {"temperature": 0.02}


# Features


def test_features_give_the_metrics_file(files: dict[str, Path], sim: Array) -> None:
    found = evaluate_features(files["test"])
    plain = evaluate_matrix(sim, logit_scale=SCALE)
    assert {name: found[name] for name in plain} == plain
    run = {
        **{"run_id": "discovla-demo-clip-0123456789", "seed": 42, "data_id": "abcdef0123"},
        **{"dataset": "demo", "split": "test", "selection": {"rule": "last", "step": 150}},
        **{
            "excluded": ["--video", "ü/../x"],
            "reader": "pyav",
            "stored": "raw",
            "precision": "fp32",
        },
        **{"train_data_id": None, "train_excluded": []},
        "parameters": 22808,
    }
    assert {name: found[name] for name in run} == run
    assert set(found) == {*plain, *run, "code", "versions", "started", "seconds"}
    assert set(found["code"]) == {"commit", "dirty", "package_sha"}
    assert found["versions"]["numpy"] == np.__version__
    json.dumps(found, allow_nan=False)


def test_a_bank_of_features_is_the_bank_of_their_scores(
    files: dict[str, Path], world: dict[str, Array], sim: Array
) -> None:
    found = evaluate_features(files["test"], files["bank"], post="qbnorm", beta=50.0, k=1, theta=1)
    bank = world["bank"] @ world["video"].T
    assert found["t2v"] == evaluate_matrix(sim, post="qbnorm", bank=bank)["t2v"]
    assert found["post"]["bank"]["t2v"]["queries"] == 200


def test_the_temperature_of_dsl_comes_from_the_files_scale(files: dict[str, Path]) -> None:
    found = evaluate_features(files["test"], post="dsl", temperature=None)
    assert found["post"]["params"] == {"temperature": 0.01}


@pytest.mark.parametrize("key", ["run_id", "seed", "annotations_id"])
def test_a_bank_of_another_run_is_refused(
    files: dict[str, Path], world: dict[str, Array], key: str
) -> None:
    save_file({"text": world["bank"]}, files["bank"], metadata=metadata(**{key: "7"}))
    with pytest.raises(UserError, match=f"{key} is 7, but .* must come from the same run"):
        evaluate_features(files["test"], files["bank"], post="qbnorm")


def test_clips_left_out_of_the_gallery_leave_the_bank_as_it_is(
    files: dict[str, Path], world: dict[str, Array]
) -> None:
    whole = metadata(split="bank", data_id="0000000000", excluded="[]")
    save_file({"text": world["bank"]}, files["bank"], metadata=whole)
    found = evaluate_features(files["test"], files["bank"], post="qbnorm")
    assert found["data_id"] == "abcdef0123"


def test_a_bank_of_another_width_is_refused(files: dict[str, Path]) -> None:
    save_file({"text": np.eye(4, dtype=np.float32)}, files["bank"], metadata=metadata(split="bank"))
    with pytest.raises(UserError, match=r"4 dimensions, but .*test\.safetensors has 16"):
        evaluate_features(files["test"], files["bank"], post="qbnorm")


def test_the_truth_of_the_file_is_used(files: dict[str, Path], sim: Array) -> None:
    tensors = load_file(files["test"])
    order = np.random.default_rng(0).permutation(30)
    tensors |= {"video": tensors["video"][order], "truth": np.argsort(order)}
    save_file(tensors, files["test"], metadata=metadata())
    found, plain = evaluate_features(files["test"]), evaluate_matrix(sim)
    assert {d: found[d] for d in ("t2v", "v2t")} == {d: plain[d] for d in ("t2v", "v2t")}


def test_zero_shot_has_no_selection(files: dict[str, Path], world: dict[str, Array]) -> None:
    tensors = {"text": world["text"], "video": world["video"], "truth": np.arange(30)}
    tensors["logit_scale"] = np.array(SCALE, np.float32)
    untrained = {k: v for k, v in metadata().items() if k not in ("step", "selection")}
    save_file(tensors, files["test"], metadata=untrained)
    assert evaluate_features(files["test"])["selection"] == {"rule": None, "step": None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": np.ones((30, 16), np.float32)}, "text: row 0 has length 4; .*30 of 30"),
        ({"text": np.full((30, 16), np.nan, np.float32)}, "text: row 0 has length nan"),
        ({"text": np.eye(30, dtype=np.float32)}, "text has 30 dimensions, video 16"),
        ({"text": np.zeros((0, 16), np.float32)}, r"shape \(0, 16\)"),
        ({"truth": np.arange(30) + 1}, "row 29 says column 30; allowed are 0 to 29"),
        ({"truth": None}, "without truth"),
        ({"logit_scale": np.ones(2, np.float32)}, r"logit_scale has shape \(2,\)"),
    ],
)
def test_damaged_features_are_refused(
    files: dict[str, Path], world: dict[str, Array], change: dict[str, Any], message: str
) -> None:
    tensors = {"text": world["text"], "video": world["video"], "truth": np.arange(30)}
    tensors["logit_scale"] = np.array(SCALE, np.float32)
    kept = {n: value for n, value in (tensors | change).items() if value is not None}
    save_file(kept, files["test"], metadata=metadata())
    with pytest.raises(UserError, match=message):
        evaluate_features(files["test"])


def test_files_that_are_no_features_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "features.safetensors"
    with pytest.raises(UserError, match="no such file"):
        evaluate_features(path)
    path.write_bytes(b"\x00" * 20)
    with pytest.raises(UserError, match="damaged or no safetensors file"):
        evaluate_features(path)
    save_file({"text": np.eye(2, dtype=np.float32)}, path)
    with pytest.raises(UserError, match=r"without video, truth, logit_scale, schema, run_id, seed"):
        evaluate_features(path)


def test_features_of_another_format_are_refused(files: dict[str, Path]) -> None:
    tensors = load_file(files["test"])
    save_file(tensors, files["test"], metadata=metadata(schema="3"))
    with pytest.raises(UserError, match="version 3, 2 is read here"):
        evaluate_features(files["test"])
