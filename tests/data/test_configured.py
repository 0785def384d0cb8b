from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from discovla.data.checks.captions import Limit
from discovla.data.configured import needed_weights, needs, plan_of
from discovla.data.encoding import choose_encoding
from discovla.experiments import Experiments


@pytest.fixture(scope="module")
def experiments(root: Path) -> Experiments:
    return Experiments.load(folder=root / "config")


def test_the_plan_of_msrvtt_is_that_of_its_tables(experiments: Experiments) -> None:
    plan = plan_of(experiments, "msrvtt")
    assert plan.limits == (Limit(32),)
    assert [item.frames for item in plan.frames] == [12]
    assert {item.kind for item in plan.captions} == {"guided", "unguided"}
    assert plan.assumed_size == (320, 240)
    runs = {run.run_id: run for run, _ in needs(experiments, "msrvtt")}
    assert {item.run_id for item in plan.trainings} == {i for i, run in runs.items() if run.trains}
    (unguided,) = [item for item in plan.captions if item.kind == "unguided"]
    assert unguided.tables == ("table8",)
    assert unguided.shape is not None
    assert unguided.shape.image.grids[0] == (336, 672)


@pytest.mark.parametrize(
    ("dataset", "frames", "words"), [("lsmdc", 12, 32), ("activitynet", 32, 64), ("didemo", 32, 64)]
)
def test_frames_and_words_of_each_dataset(
    experiments: Experiments, dataset: str, frames: int, words: int
) -> None:
    plan = plan_of(experiments, dataset)
    assert {item.frames for item in plan.frames} == {frames}
    assert plan.limits == (Limit(words),)


def test_frames_are_kept_as_the_settings_say(experiments: Experiments) -> None:
    for run, _ in needs(experiments, "lsmdc"):
        (frames,) = [
            f for f in plan_of(experiments, "lsmdc").frames if f.frames_id == run.frames_id
        ]
        assert frames.encoding["encoding"] == run.settings.frame_encoding
        assert frames.encoding["limit_gb"] == run.settings.frame_limit_gb
        # Every key is one that the choice knows.
        choose_encoding(pd.DataFrame(columns=["status", "width", "height"]), 1, **frames.encoding)


def test_the_demo_counts_with_its_own_tokenizer(experiments: Experiments) -> None:
    (limit,) = plan_of(experiments, "demo").limits
    assert limit.merges is not None
    assert Path(limit.merges).is_file()


def test_every_table_of_a_dataset_is_named_where_it_is_needed(experiments: Experiments) -> None:
    plan = plan_of(experiments, "msrvtt")
    named = {table for item in plan.frames for table in item.tables}
    assert named == set(experiments.targets("msrvtt"))
    weights = {entry.name: entry.needed_by for entry in needed_weights(experiments, "msrvtt")}
    assert weights["backbone vit-b16"] == ("table1",)
    assert set(weights) == {"backbone vit-b16", "backbone vit-b32", "captioner llava-next"}


def test_shapes_are_those_of_known_captioners(experiments: Experiments) -> None:
    plan = plan_of(experiments, "demo")
    assert {item.shape for item in plan.captions} == {None}
