"""Figures 6-9: one parameter swept, mean and std over seeds, as numbers and as SVG."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from discovla.experiments import Experiments
from discovla.files import atomic_path, atomic_write
from discovla.report.tables import build_table


@dataclass(frozen=True)
class Figure:
    """A sweep ready to be drawn: `frame` has one line per point, column `value` first."""

    spec: Mapping[str, Any]
    dataset: str
    frame: pd.DataFrame


def build_figure(
    experiments: Experiments, dataset: str, name: str, results: Path = Path("results")
) -> Figure:
    """All points of one figure, in the order of its grid."""
    table = build_table(experiments, dataset, name, results)
    frame = table.frame.copy()
    frame.insert(0, "value", [row.value for row in experiments.rows(dataset, name)])
    frame.insert(0, "parameter", experiments.figures[name]["parameter"])
    return Figure(experiments.figures[name], dataset, frame)


def write_figure(figure: Figure, *, csv: str, svg: str) -> None:
    """Write the points as CSV and the drawing as SVG (the same bytes for the same numbers)."""
    with atomic_write(csv) as handle:
        figure.frame.to_csv(handle, index=False, lineterminator="\n")
    draw(figure, svg)


def draw(figure: Figure, path: str) -> None:
    """One panel per metric; bars are one standard deviation, where there are several seeds."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    spec, frame = figure.spec, figure.frame
    direction, metrics = spec["direction"], spec["metrics"]
    style = {"svg.hashsalt": "discovla", "svg.fonttype": "none", "font.size": 10}
    with mpl.rc_context(style):
        drawing, panels = plt.subplots(
            1, len(metrics), figsize=(4.2 * len(metrics), 3.2), layout="constrained"
        )
        for panel, metric in zip(panels, metrics, strict=True):
            column = f"{direction}_{metric}"
            panel.errorbar(
                frame["value"],
                frame[column],
                yerr=frame[f"{column}_std"].fillna(0),
                marker="o",
                capsize=3,
                color="#1f4e79",
            )
            panel.set_xlabel(spec["symbol"])
            panel.set_ylabel(f"{metric} ({direction}, %)")
            panel.set_xticks(frame["value"])
            panel.grid(alpha=0.3)
        seeds = int(frame["n_seeds"].max())
        drawing.suptitle(f"{spec['title']} · {figure.dataset}, {seeds} seed(s)", fontsize=10)
        with atomic_path(path) as temporary:
            drawing.savefig(temporary, format="svg", metadata={"Date": None})
        plt.close(drawing)
