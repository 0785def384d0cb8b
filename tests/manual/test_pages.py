"""Made parts of the manual: plans as Snakemake's, every command, tables that hold together."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from discovla.cli import build_parser
from discovla.experiments import Experiments
from discovla.manual.pages import PARTS, fill
from discovla.manual.plan import whole, work

EXPERIMENTS = Experiments.load()
DATASETS = list(EXPERIMENTS.config["data"])


def test_plans_train_what_the_golden_file_says() -> None:
    """tests/workflow/test_plan.py holds that file against Snakemake's own plan."""
    golden = json.loads(Path("tests/golden/trainings.json").read_text())
    for target, trainings in golden.items():
        _, dataset, name = Path(target).with_suffix("").parts
        assert work(EXPERIMENTS, dataset, name).trainings == trainings, target


def test_shared_runs_count_once() -> None:
    assert sum(whole(EXPERIMENTS, dataset).trainings for dataset in DATASETS) == 57
    post = work(EXPERIMENTS, "msrvtt", "table9")
    assert (post.rows, post.trainings, post.evaluations) == (3, 1, 2)  # the bank is the second


def test_captions_are_counted_where_they_are_read() -> None:
    assert work(EXPERIMENTS, "msrvtt", "table6").caption_shards == 0
    assert work(EXPERIMENTS, "msrvtt", "table8").caption_shards == 2 * 64


@pytest.mark.parametrize("name", PARTS)
def test_tables_have_as_many_cells_as_their_head(name: str) -> None:
    width = None
    for line in PARTS[name]().splitlines():
        if not line.startswith("| "):
            width = None
            continue
        cells = len(re.findall(r"(?<!\\)\|", line))
        assert width is None or cells == width, line
        width = cells


def test_every_command_stands_with_its_help() -> None:
    text = PARTS["commands"]()
    parser = build_parser()
    for name in parser._subparsers._group_actions[0].choices:  # type: ignore[union-attr, arg-type]
        assert f"\n## discovla {name}\n" in text
        assert f"usage: discovla {name} " in text


def test_parts_take_the_place_of_their_marks() -> None:
    assert fill("a\n\n<!-- made: plan -->\n\nb").startswith("a\n\n### MSRVTT\n")
    with pytest.raises(KeyError):
        fill("<!-- made: nothing -->")


def test_every_part_stands_in_a_page() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in Path("docs").glob("*.md"))
    for name in PARTS:
        assert f"<!-- made: {name} -->" in text
