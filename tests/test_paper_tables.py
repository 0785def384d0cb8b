"""The paper's tables as data: every number as printed, sums and quoted gains, closed schemas."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from discovla.config import load_checked, load_yaml, validate
from discovla.errors import UserError
from discovla.methods.options import OPTIONS
from discovla.settings import Options, RunSettings

TABLES = {f"table{n}": load_checked(f"config/tables/table{n}.yaml", "table") for n in range(1, 10)}
FIGURES = {
    f"figure{n}": load_checked(f"config/figures/figure{n}.yaml", "figure") for n in range(6, 10)
}
RECALLS = ("R@1", "R@5", "R@10")


def rows(table: str) -> dict[str, dict[str, Any]]:
    return {row["row"]: row for row in TABLES[table]["rows"]}


def printed(table: str, row: str, direction: str = "t2v", dataset: str | None = None) -> Any:
    dataset = dataset or TABLES[table]["prints"][0]
    numbers = rows(table)[row]["paper"][dataset][direction]
    return dict(zip(TABLES[table]["metrics"], numbers, strict=True))


def every_line() -> Iterator[tuple[str, str, str, str, dict[str, float | None]]]:
    """(table, row, dataset, direction, numbers by metric) for all that is printed."""
    for name, table in TABLES.items():
        for row in table["rows"]:
            for dataset, directions in row.get("paper", {}).items():
                for direction in directions:
                    yield (
                        *(name, row["row"], dataset, direction),
                        printed(name, row["row"], direction, dataset),
                    )


def gain(table: str, row: str, over: str, metric: str = "R@sum", **where: str) -> float:
    difference = printed(table, row, **where)[metric] - printed(table, over, **where)[metric]
    return round(difference, 1)


# Numbers


def test_every_number_is_the_printed_one(shared: Callable[[str], Path]) -> None:
    """Line by line against the text of the paper: parameters, recalls, sums and mean ranks."""
    text = shared("paper/discovla.txt").read_text(encoding="utf-8")
    number = re.compile(r"(-|\d+(?:\.\d+)?)(?: \(-\d\.\d\))?")
    in_print = []
    for line in text.splitlines():
        tail: list[float | None] = []
        for cell in reversed(line.rstrip().split("\t")):
            match = number.fullmatch(cell.strip())
            if match is None:
                break
            tail.insert(0, None if match[1] == "-" else float(match[1]))
        if len(tail) >= 4:
            in_print.append(tail)
    ours = []
    for table in TABLES.values():
        for dataset in table["prints"]:
            for row in table["rows"]:
                if "paper" in row:
                    numbers = [n for d in table["directions"] for n in row["paper"][dataset][d]]
                    ours.append([row[k] for k in ("params",) if k in row] + numbers)
    assert ours == in_print


@pytest.mark.parametrize(
    ("table", "n_rows", "n_numbers"),
    [
        ("table1", 17, 158),
        ("table2", 5, 45),
        ("table3", 6, 48),
        ("table4", 5, 45),
        ("table5", 6, 48),
        ("table6", 4, 16),
        ("table7", 4, 16),
        ("table8", 2, 8),
        ("table9", 3, 24),
    ],
)
def test_as_many_rows_and_numbers_as_in_print(table: str, n_rows: int, n_numbers: int) -> None:
    assert sum("paper" in row for row in TABLES[table]["rows"]) == n_rows
    numbers = [n for name, *_, line in every_line() if name == table for n in line.values()]
    assert sum(n is not None for n in numbers) == n_numbers


def test_printed_sums_are_sums_except_the_marked_misprint() -> None:
    checked, wrong = 0, []
    for table, row, dataset, direction, numbers in every_line():
        if numbers["R@sum"] is None:
            continue
        checked += 1
        total = round(sum(numbers[m] or 0 for m in RECALLS), 1)
        if total != numbers["R@sum"]:
            wrong.append((table, row, dataset, direction, "R@sum", numbers["R@sum"], total))
    marked = [
        (table, row["row"], *(m[k] for k in ("dataset", "direction", "metric")), *_values(m))
        for table, spec in TABLES.items()
        for row in spec["rows"]
        for m in row.get("misprints", ())
    ]
    assert checked == 87
    assert (
        wrong
        == marked
        == [
            ("table1", "adapter-b32", "msrvtt", "t2v", "R@sum", 190.2, 190.5),
        ]
    )


def _values(misprint: dict[str, Any]) -> tuple[float, float]:
    return misprint["printed"], misprint["expected"]


def test_recalls_rise_with_k() -> None:
    for *where, numbers in every_line():
        recalls = [n for n in (numbers[m] for m in RECALLS) if n is not None]
        assert recalls == sorted(recalls), where


# What the text derives from them


@pytest.mark.parametrize(
    ("found", "quoted"),
    [
        (gain("table5", "b1", "lora"), 8.7),
        (gain("table5", "b1", "lora", direction="v2t"), 6.7),
        (gain("table5", "discovla", "b1"), 1.1),
        (gain("table5", "discovla", "b1", direction="v2t"), 2.8),
        (gain("table5", "discovla", "lora"), 9.8),
        (gain("table5", "discovla", "lora", direction="v2t"), 9.5),
        (gain("table6", "video", "image"), 4.4),
        (gain("table7", "paired", "video"), 1.9),
        (gain("table8", "unguided", "guided", "R@1"), -0.9),
        (gain("table8", "unguided", "guided", "R@5"), 0.0),
        (gain("table8", "unguided", "guided", "R@10"), -0.7),
        (gain("table8", "unguided", "guided"), -1.6),
        (gain("table9", "dsl", "discovla"), 11.1),
        (gain("table9", "qbnorm", "discovla", dataset="activitynet"), 8.0),
        (gain("table9", "dsl", "discovla", dataset="activitynet"), 19.6),
        (gain("table1", "discovla-b16", "tempme-b16", "R@1"), 1.5),
    ],
)
def test_gains_are_those_quoted_in_the_text(found: float, quoted: float) -> None:
    assert found == quoted


@pytest.mark.parametrize("table", ["table1", "table2", "table3", "table4"])
def test_discovla_has_the_best_text_to_video_recall_as_the_text_says(table: str) -> None:
    for backbone in {row["backbone"] for row in TABLES[table]["rows"]}:
        best = {
            name: printed(table, name)["R@1"]
            for name, row in rows(table).items()
            if "paper" in row and row["backbone"] == backbone
        }
        assert max(best, key=lambda name: best[name]).startswith("discovla")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("table1", "lora-b32"), ("table5", "lora")),
        (("table1", "lora-b32"), ("table6", "image")),
        (("table1", "discovla-b32"), ("table5", "discovla")),
        (("table1", "discovla-b32"), ("table7", "fine")),
        (("table1", "discovla-b32"), ("table8", "guided")),
        (("table1", "discovla-b32"), ("table9", "discovla")),
        (("table5", "b1"), ("table6", "ivfusion")),
        (("table5", "b3"), ("table7", "none")),
    ],
)
def test_one_training_has_one_set_of_numbers(one: tuple[str, str], other: tuple[str, str]) -> None:
    first, second = printed(*one), printed(*other)
    assert {m: first[m] for m in second} == second
    usual = {field.name: field.default for field in dataclasses.fields(RunSettings)}

    def training(row: dict[str, Any]) -> dict[str, Any]:
        changed = {k: v for k, v in row.get("set", {}).items() if usual.get(k) != v}
        return {**{key: row.get(key) for key in ("method", "backbone", "recipe")}, "set": changed}

    ours, theirs = (training(rows(table)[row]) for table, row in (one, other))
    assert ours == theirs


def test_table_9_repeats_table_3() -> None:
    first = printed("table3", "discovla")
    second = printed("table9", "discovla", dataset="activitynet")
    assert {m: first[m] for m in second} == second


# Shape


@pytest.mark.parametrize("name", TABLES)
def test_table_is_complete_and_consistent(name: str) -> None:
    table = TABLES[name]
    ids = [row["row"] for row in table["rows"]]
    assert len(set(ids)) == len(ids)
    settings = {field.name for field in dataclasses.fields(RunSettings)}
    for row in table["rows"]:
        if "paper" in row:
            assert list(row["paper"]) == table["prints"], row["row"]
            for directions in row["paper"].values():
                assert list(directions) == table["directions"], row["row"]
                for numbers in directions.values():
                    assert len(numbers) == len(table["metrics"]), row["row"]
        own = OPTIONS.get(row.get("method"), Options)
        assert set(row.get("set", {})) <= settings | {f.name for f in dataclasses.fields(own)}
        for misprint in row.get("misprints", ()):
            numbers = printed(name, row["row"], misprint["direction"], misprint["dataset"])
            assert numbers[misprint["metric"]] == misprint["printed"]


@pytest.mark.parametrize("name", FIGURES)
def test_figure_passes_through_the_papers_point(name: str) -> None:
    figure = FIGURES[name]
    constants = load_yaml("config/defaults.yaml")["settings"]
    assert figure["parameter"] in {field.name for field in dataclasses.fields(RunSettings)}
    assert figure["paper"]["optimum"] == constants[figure["parameter"]]
    assert figure["paper"]["optimum"] in figure["grid"]
    full = printed("table1", "discovla-b32", figure["direction"])
    assert figure["paper"]["point"] == {metric: full[metric] for metric in figure["metrics"]}
    for grid in (figure["grid"], *figure.get("grids", {}).values()):
        assert grid == sorted(grid)


@pytest.mark.parametrize("name", FIGURES)
def test_the_demos_grid_holds_the_demos_own_value(name: str) -> None:
    parameter = FIGURES[name]["parameter"]
    constants = load_yaml("config/defaults.yaml")["settings"]
    own = load_yaml("config/datasets/demo.yaml")["set"]
    grid = FIGURES[name]["grids"]["demo"]
    assert len(grid) == 3
    assert own.get(parameter, constants[parameter]) in grid


# Schemas


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if "properties" in schema:
            yield schema
        for value in schema.values():
            yield from objects(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from objects(value)


@pytest.mark.parametrize("kind", ["table", "figure"])
def test_schemas_are_closed(kind: str) -> None:
    found = list(objects(load_yaml(f"workflow/schemas/{kind}.schema.yaml")))
    assert found
    assert all(schema["additionalProperties"] is False for schema in found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": None}, "method"),
        ({"colour": "red"}, "'colour' was unexpected"),
        ({"row": "Bad Name"}, "does not match"),
        ({"row": "../up"}, "does not match"),
        ({"post": "csls"}, "is not one of"),
        ({"set": {}}, "non-empty"),
        ({"paper": {"msrvtt": {"a2v": [1]}}}, "'a2v' was unexpected"),
        ({"paper": {"msrvtt": {"t2v": ["47.0"]}}}, "is not of type"),
        ({"footnotes": ["x"], "misprints": [{"dataset": "msrvtt"}]}, "required property"),
    ],
)
def test_mistakes_in_a_row_are_refused(change: dict[str, Any], message: str) -> None:
    table = copy.deepcopy(TABLES["table5"])
    table["rows"][5].update(change)
    with pytest.raises(UserError, match=message) as caught:
        validate(table, "table", "table5.yaml")
    assert "table5.yaml: rows.5" in str(caught.value)


@pytest.mark.parametrize("without", ["set", "recipe", "post"])
def test_a_quoted_row_has_nothing_to_train(without: str) -> None:
    table = copy.deepcopy(TABLES["table5"])
    row = table["rows"][5]
    del row["method"]
    validate(table, "table", "table5.yaml")
    row[without] = {"set": {"beta": 0}, "recipe": "paper", "post": "dsl"}[without]
    with pytest.raises(UserError, match="'method' is a dependency"):
        validate(table, "table", "table5.yaml")


def test_a_row_is_trained_or_quoted() -> None:
    table = copy.deepcopy(TABLES["table5"])
    del table["rows"][5]["method"], table["rows"][5]["paper"]
    with pytest.raises(UserError, match="'paper' is a required property"):
        validate(table, "table", "table5.yaml")
