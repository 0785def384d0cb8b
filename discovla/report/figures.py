"""Figures 6-9: one parameter swept, mean and std over seeds, beside what the paper says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from discovla.experiments import Experiments
from discovla.report.pictures import AWAY, NEARER, drawing, plain
from discovla.report.tables import build_table
from discovla.storage.files import atomic_write

_PANEL, _HEIGHT, _LINE = 4.4, 3.5, 0.17
"""Inches: a panel, and a line of text below all of them."""
_NO_POINTS = "The paper prints a curve without numbers: the grid is ours."


@dataclass(frozen=True)
class Figure:
    """A sweep ready to be drawn: `frame` has one line per point, column `value` first."""

    spec: Mapping[str, Any]
    dataset: str
    frame: pd.DataFrame

    @property
    def printed(self) -> bool:
        """Whether the paper has this figure for this dataset, so that its numbers compare."""
        return self.dataset in self.spec["prints"]

    def statements(self) -> list[str]:
        """What the paper says of the curve, and what it does not say."""
        found = [f"The paper ({', '.join(self.spec['prints'])}): {s}" for s in _said(self.spec)]
        return [*found, _NO_POINTS]


def _said(spec: Mapping[str, Any]) -> Sequence[str]:
    statements: Sequence[str] = spec["paper"]["statements"]
    return statements


def build_figure(
    experiments: Experiments, dataset: str, name: str, results: Path = Path("results")
) -> Figure:
    """All points of one figure, in the order of its grid."""
    table = build_table(experiments, dataset, name, results)
    frame = table.frame.copy()
    frame.insert(0, "value", [row.value for row in experiments.rows(dataset, name)])
    frame.insert(0, "parameter", experiments.figures[name]["parameter"])
    return Figure(experiments.figures[name], dataset, frame)


def write_figure(figure: Figure, *, csv: str, pictures: Sequence[str]) -> None:
    """Write the points as CSV, and the drawing under each name (`.svg` or `.png`).

    The same numbers give the same bytes.
    """
    with atomic_write(csv) as handle:
        figure.frame.to_csv(handle, index=False, lineterminator="\n")
    for path in pictures:
        draw(figure, path)


def draw(figure: Figure, path: str) -> None:
    """One panel per metric; bars are one standard deviation, where there are several seeds.

    A dashed line marks the value that the paper found best, a diamond the numbers that it prints
    there (those of DiscoVLA in Table 1), on the dataset that they belong to.
    """
    metrics = figure.spec["metrics"]
    width = _PANEL * len(metrics)
    notes = [plain(text, int(15.5 * width), 3) for text in figure.statements()]
    below = _LINE * sum(note.count("\n") + 1 for note in notes) + 0.1
    with drawing(path, (width, _HEIGHT + below), dpi=200) as drawn:
        upper, lower = drawn.subfigures(2, 1, height_ratios=[_HEIGHT, below])
        panels = upper.subplots(1, len(metrics), squeeze=False)[0]
        for panel, metric in zip(panels, metrics, strict=True):
            _sweep(panel, figure, metric)
        handles, labels = panels[0].get_legend_handles_labels()
        place = {"loc": "outside lower center", "ncols": len(labels)}
        upper.legend(handles[::-1], labels[::-1], fontsize=8.5, **place)
        seeds = int(figure.frame["n_seeds"].max())
        spread = f"mean ± 1 std over {seeds} seeds" if seeds > 1 else "1 seed"
        upper.suptitle(f"{figure.spec['title']} · {figure.dataset}, {spread}", fontsize=10.5)
        lower.text(0.02, 1, "\n".join(notes), va="top", ha="left", fontsize=8, color="0.25")


def _sweep(panel: Any, figure: Figure, metric: str) -> None:
    spec, frame = figure.spec, figure.frame
    column = f"{spec['direction']}_{metric}"
    seeds = int(frame["n_seeds"].max())
    panel.errorbar(
        frame["value"],
        frame[column],
        yerr=frame[f"{column}_std"].fillna(0) if seeds > 1 else None,
        **{"marker": "o", "markersize": 5, "capsize": 3, "color": NEARER},
        label="measured here",
    )
    optimum = spec["paper"]["optimum"]
    panel.axvline(
        optimum, color=AWAY, linestyle="--", linewidth=1.2, label=f"best in the paper: {optimum:g}"
    )
    printed = spec["paper"]["point"].get(metric)
    if figure.printed and printed is not None:
        panel.plot(
            *([optimum], [printed]),
            **{"marker": "D", "linestyle": "none", "markersize": 7, "color": AWAY},
            **{"markerfacecolor": "white", "label": "DiscoVLA as printed"},
        )
        panel.annotate(
            f"{printed:.1f}", (optimum, printed), (8, 4), textcoords="offset points", fontsize=8.5
        )
    panel.set_xlabel(spec["symbol"])
    panel.set_ylabel(f"{metric} ({spec['direction']}, %)")
    panel.set_xticks(frame["value"])
    panel.xaxis.set_major_formatter("{x:g}")
    panel.margins(y=0.12)
    panel.grid(alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)
