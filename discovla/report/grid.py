"""A method's grid on the validation split: what a choice of its settings rests on."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from discovla.experiments import Experiments
from discovla.retrieval.evaluate import evaluate_features
from discovla.storage.files import atomic_write

COLUMNS = [
    "method",
    "setting",
    "t2v_R@sum",
    "v2t_R@sum",
    "mean_R@sum",
    "n_seeds",
    "split",
    "run_id",
]


def build_grid(
    experiments: Experiments, dataset: str, method: str, results: Path = Path("results")
) -> pd.DataFrame:
    """One line per point of a grid, best first.

    Columns: method, setting, t2v_R@sum and v2t_R@sum (means over seeds), mean_R@sum of both,
    n_seeds, split, run_id.
    """
    lines = []
    for row in experiments.grid(dataset, method):
        found = [
            evaluate_features(
                results / dataset / f"runs/{row.row}/seed{seed}/features.val.safetensors"
            )
            for seed in experiments.seeds(dataset)
        ]
        sums = {d: _mean(found, d) for d in ("t2v", "v2t")}
        line: dict[str, Any] = {"method": method, "setting": row.label}
        line |= {f"{d}_R@sum": value for d, value in sums.items()}
        line |= {"mean_R@sum": statistics.fmean(sums.values()), "n_seeds": len(found)}
        lines.append({**line, "split": "val", "run_id": row.row})
    return pd.DataFrame(lines, columns=COLUMNS).sort_values(
        "mean_R@sum", ascending=False, kind="stable"
    )


def _mean(found: Sequence[Mapping[str, Any]], direction: str) -> float:
    return statistics.fmean(metrics[direction]["R@sum"] for metrics in found)


def write_grid(grid: pd.DataFrame, path: str | Path) -> None:
    """Write the lines as CSV."""
    with atomic_write(path) as handle:
        grid.to_csv(handle, index=False, lineterminator="\n")
