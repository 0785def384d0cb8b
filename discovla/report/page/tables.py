"""Tables as the page shows them: every number as text, with what it was held against."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from discovla.report.page.media import text_address
from discovla.report.tables import DIRECTIONS, METRICS, NAMES, Table, to_latex, to_markdown

FACTS = {
    "provenance": "provenance",
    "method": "method",
    "recipe": "recipe",
    "protocol": "protocol",
    "implementation": "implementation",
    "selected_on": "learning rate chosen on",
    "seeds": "seeds",
    "n_test": "queries",
    "ties": "tied queries, t2v/v2t",
    "selection": "checkpoint",
    "post": "post-processing",
    "captions": "pseudo captions",
    "data_id": "data",
    "run_id": "run",
    "commit": "code",
}
"""Column of the CSV → heading of the table of provenance."""


def heading(name: str) -> str:
    """What a table or figure is called: `Table 5` for `table5`, other names as they are."""
    return re.sub(r"^(table|figure)(\d+)$", lambda m: f"{m[1].capitalize()} {m[2]}", name)


@dataclass(frozen=True)
class Cell:
    """One number: measured mean and std over seeds, the printed one, and their difference."""

    measured: str
    std: str
    printed: str
    difference: str
    order: str
    """What a reader's sorting goes by; empty where nothing was measured."""


@dataclass(frozen=True)
class Line:
    """One row of a table."""

    label: str
    marks: list[int]
    """Numbers of its footnotes."""
    quoted: bool
    backbone: str
    params: str
    params_paper: str
    cells: list[Cell]
    facts: list[str]
    """Texts in the order of `TableView.fact_names`."""


@dataclass(frozen=True)
class TableView:
    """One table of the page."""

    name: str
    title: str
    listed: bool
    """Whether the page is made of it; else it was found on disk and may be older."""
    made: bool
    """False where only single rows of it are there."""
    groups: list[tuple[str, list[str]]]
    """Directions with their metrics."""
    lines: list[Line]
    fact_names: list[str]
    footnotes: list[str]
    notes: list[str]
    markdown: str
    latex: str
    csv: str
    path: str

    @property
    def has_print(self) -> bool:
        """Whether any cell has a printed number."""
        return any(cell.printed for line in self.lines for cell in line.cells)


def view(name: str, table: Table, path: Path, *, listed: bool, made: bool = True) -> TableView:
    """A table ready for the template."""
    frame = table.frame
    shown = {
        d: [m for m in METRICS if frame[[f"{d}_{m}", f"{d}_{m}_paper"]].notna().any(axis=None)]
        for d in DIRECTIONS
    }
    footnotes: list[str] = []
    lines = [_line(line, shown, footnotes) for _, line in frame.iterrows()]
    facts = [column for column in FACTS if frame[column].notna().any()]
    for line, (_, row) in zip(lines, frame.iterrows(), strict=True):
        line.facts.extend("" if pd.isna(row[column]) else str(row[column]) for column in facts)
    return TableView(
        name=name,
        title=table.title,
        listed=listed,
        made=made,
        groups=[(NAMES[d], metrics) for d, metrics in shown.items() if metrics],
        lines=lines,
        fact_names=[FACTS[column] for column in facts],
        footnotes=footnotes,
        notes=list(table.notes),
        markdown=to_markdown(table),
        latex=to_latex(table),
        csv=text_address(frame.to_csv(index=False, lineterminator="\n")),
        path=str(path),
    )


def _line(row: pd.Series[Any], shown: dict[str, list[str]], footnotes: list[str]) -> Line:
    marks = []
    if pd.notna(row["footnote"]):
        if row["footnote"] not in footnotes:
            footnotes.append(row["footnote"])
        marks.append(footnotes.index(row["footnote"]) + 1)
    return Line(
        label=row["label"],
        marks=marks,
        quoted=row["provenance"] == "quoted",
        backbone="" if pd.isna(row["backbone"]) else row["backbone"],
        params="" if pd.isna(row["params"]) else f"{row['params']:,}",
        params_paper="" if pd.isna(row["params_paper"]) else f"{row['params_paper']:g} M",
        cells=[_cell(row, f"{d}_{m}") for d, metrics in shown.items() for m in metrics],
        facts=[],
    )


def _cell(row: pd.Series[Any], name: str) -> Cell:
    def text(column: str, form: str) -> str:
        return "" if pd.isna(row[column]) else format(row[column], form).replace("-", "−")

    return Cell(
        measured=text(name, ".1f"),
        std=text(f"{name}_std", ".1f"),
        printed=text(f"{name}_paper", ".1f"),
        difference=text(f"{name}_diff", "+.1f"),
        order="" if pd.isna(row[name]) else repr(float(row[name])),
    )
