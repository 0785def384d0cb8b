"""Captioners behind a server, and the pictures, as the workflow plans them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from discovla.captioning.fingerprint import folder_fingerprint
from discovla.data.configured import needed_weights
from discovla.errors import UserError
from discovla.experiments import Experiments
from tests.workflow.run import edit, snakemake, workspace

SERVED = {"engine": "server", "url": "http://gpu7:8000/a b/v1", "api_key_env": "THE_KEY"}


def captions_id(experiments: Experiments, captions: str = "guided") -> str:
    """Of the demo's runs with these captions."""
    found = {
        run.captions_id
        for run in experiments.runs("demo").values()
        if run.captions_id and run.settings.captions == captions
    }
    (identity,) = found
    assert identity
    return identity


def with_captioner(folder: Path, **changes: Any) -> Experiments:
    space = workspace(folder)
    edit(space / "config" / "captioners.yaml", lambda c: c["demo-llava"].update(changes))
    return Experiments.load(folder=space / "config")


def test_what_decides_the_answers_is_in_the_id(tmp_path: Path) -> None:
    plain = captions_id(Experiments.load())
    same: list[dict[str, Any]] = [{"engine": "transformers"}, {"batch_size": 7}]
    for number, changes in enumerate(same):
        assert captions_id(with_captioner(tmp_path / f"same{number}", **changes)) == plain
    served = captions_id(with_captioner(tmp_path / "served", **SERVED))
    moved = {**SERVED, "url": "http://elsewhere/v1", "concurrency": 3}
    assert served != plain
    assert captions_id(with_captioner(tmp_path / "moved", **moved)) == served


def test_answers_are_as_long_as_the_text_encoder_reads(tmp_path: Path) -> None:
    """Datasets with 64 words need longer answers, and count others as cut off."""
    experiments = Experiments.load()

    def longest(dataset: str) -> set[int]:
        runs = [run for run in experiments.runs(dataset).values() if run.captions_id]
        return {experiments.longest_answer(run.settings) for run in runs}

    assert [longest(name) for name in ("msrvtt", "lsmdc")] == [{40}, {40}]
    assert [longest(name) for name in ("activitynet", "didemo")] == [{83}, {83}]
    # A number stays what it is; how many tokens count still decides who is asked again.
    space = workspace(tmp_path)
    edit(space / "config" / "captioners.yaml", lambda c: c["llava-next"].update(max_new_tokens=40))

    def identity(words: int) -> str | None:
        found = Experiments.load(folder=space / "config")
        return found.resolve("msrvtt", "discovla", "vit-b32", {"words": words}).captions_id

    written = {run.captions_id for run in experiments.runs("msrvtt").values()}
    assert identity(32) in written
    assert identity(64) not in written


def test_what_lies_in_a_folder_is_in_the_id(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    config = folder / "config.json"

    def identity(content: str, **changes: Any) -> str:
        config.write_text(content, encoding="utf-8")
        folder_fingerprint.cache_clear()
        space = tmp_path / str(len(list(tmp_path.iterdir())))
        return captions_id(with_captioner(space, model=str(folder), **changes))

    first, other, again = identity("{}"), identity("[]"), identity("{}")
    assert first == again != other
    # A folder of that name on the server's machine is not looked at.
    assert identity("{}", **SERVED) == identity("[]", **SERVED)
    # The user's own copy of a model that goes by its id is that model.
    space = workspace(tmp_path / "copy")
    edit(
        space / "config" / "config.yaml",
        lambda c: c["captioner_path"].update({"demo-llava": str(folder)}),
    )
    assert captions_id(Experiments.load(folder=space / "config")) == captions_id(Experiments.load())


def test_a_served_model_needs_no_weights_here(tmp_path: Path) -> None:
    def names(experiments: Experiments) -> list[str]:
        return [weights.name for weights in needed_weights(experiments, "demo")]

    here, served = names(Experiments.load()), names(with_captioner(tmp_path, **SERVED))
    assert "captioner demo-llava" in here
    assert set(here) - set(served) == {"captioner demo-llava"}


@pytest.mark.parametrize(
    "changes",
    [
        {"engine": "server"},
        {"url": "http://a/v1"},
        {"engine": "telepathy"},
        {**SERVED, "grid": "single"},
        {**SERVED, "sampling": {"seed": 1}},
        {"engine": "server", "url": "http://me:word@a/v1"},
        {"engine": "server", "url": "http://a/v1?key=word"},
    ],
)
def test_settings_that_do_not_fit(tmp_path: Path, changes: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"captioners\.yaml.*demo-llava"):
        with_captioner(tmp_path, **changes)


def test_plan_of_a_served_captioner_and_of_the_pictures(tmp_path: Path) -> None:
    experiments = with_captioner(tmp_path, **SERVED)
    identity = captions_id(experiments)
    run = next(r for r in experiments.runs("demo").values() if r.captions_id == identity)
    targets = [f"results/demo/captions/{identity}.svg"]
    targets += [f"results/demo/runs/{run.run_id}/seed0/similarity.png"]
    output = snakemake(tmp_path, *targets, "-n", "-p").stdout
    caption = re.findall(r"python -m discovla caption .*", output)
    assert len(caption) == 2
    for line in caption:
        assert "--engine server --url 'http://gpu7:8000/a b/v1'" in line
        assert "--api-key-env THE_KEY" in line
        assert "--max-new-tokens 20 --words 32" in line
        assert "--batch-size" not in line
    assert f"discovla show-captions results/demo/captions/{identity}.parquet" in output
    assert f"discovla show-similarity results/demo/captions/{identity}.parquet" in output
    assert f"--frames resources/demo/frames/{run.frames_id} " in output
