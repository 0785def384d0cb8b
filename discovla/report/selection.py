"""Which checkpoint of a training is reported: the last, or the best on a split, told honestly.

The measure is R@sum of text-to-video retrieval. Of equal checkpoints the earliest is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from discovla.errors import UserError
from discovla.retrieval.evaluate import evaluate_features
from discovla.runs import SELECTIONS
from discovla.storage.files import atomic_write

METRICS = ("R@1", "R@5", "R@10", "R@sum", "MnR")
MEASURE = "t2v_R@sum"
_OF_ONE = ("run_id", "seed", "data_id", "train_data_id")
"""What all checkpoints of a training have in common."""
SPLIT_OF = {"val_best": "val", "test_best": "test"}
COLUMNS = [
    *("checkpoint", "step"),
    *(f"{s}_{d}_{m}" for s in ("val", "test") for d in ("t2v", "v2t") for m in METRICS),
    "chosen_by",
]


def build_selection(folder: str | Path) -> pd.DataFrame:
    """Every checkpoint's numbers, by step, and which rules choose it.

    Args:
        folder: of `discovla epochs`.

    Raises:
        UserError: no features of the last step, a checkpoint that lacks a split, or features of
            another training or other data than those of the last step.
    """
    lines = []
    for name, found in _measured(Path(folder)).items():
        line: dict[str, Any] = {"checkpoint": name, "step": found["test"]["selection"]["step"]}
        for split, metrics in found.items():
            line |= {f"{split}_{d}_{m}": metrics[d][m] for d in ("t2v", "v2t") for m in METRICS}
        lines.append(line)
    frame = pd.DataFrame(lines, columns=COLUMNS).sort_values("step", kind="stable")
    frame = frame.reset_index(drop=True)
    chosen = {rule: _choose(frame, rule) for rule in SELECTIONS}
    frame["chosen_by"] = [
        " ".join(rule for rule, row in chosen.items() if row == i) or None for i in frame.index
    ]
    return frame


def _measured(folder: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """The metrics of every checkpoint on every split."""
    files: dict[str, dict[str, Path]] = {}
    for path in folder.glob("*.safetensors"):
        name, _, split = path.stem.rpartition(".")
        files.setdefault(name, {})[split] = path
    again = f"remove the folder {folder} and run 'discovla epochs' again"
    if "last" not in files:
        raise UserError(f"{folder}: no features of the last step; {again}")
    for name, splits in files.items():
        if splits.keys() != files["last"].keys():
            raise UserError(f"{folder}: {name} lacks a split; {again}")
    found = {n: {s: evaluate_features(p) for s, p in splits.items()} for n, splits in files.items()}
    for name, splits in files.items():
        for split, path in splits.items():
            if any(found[name][split][key] != found["last"][split][key] for key in _OF_ONE):
                raise UserError(
                    f"{path}: of another training or other data than {files['last'][split]}; "
                    f"{again}"
                )
    return found


def _choose(frame: pd.DataFrame, rule: str) -> int | None:
    """The line that a rule chooses; None where its split was not measured."""
    if rule == "last":
        return int(frame.index[frame["checkpoint"] == "last"][0])
    column = frame[f"{SPLIT_OF[rule]}_{MEASURE}"]
    return None if column.isna().any() else int(column.idxmax())


def chosen_checkpoint(path: str | Path, rule: str) -> str:
    """The checkpoint that selection.csv gives for a rule; `UserError` if it has none."""
    frame = pd.read_csv(path)
    lines = frame[frame["chosen_by"].fillna("").str.split().map(lambda rules: rule in rules)]
    if len(lines) != 1:
        raise UserError(f"{path}: no checkpoint for {rule}; a val split is needed for val_best")
    return str(lines["checkpoint"].iloc[0])


def chosen_features(folder: str | Path, rule: str) -> Path:
    """Test features of the checkpoint that a rule chooses for a seed's folder (…/seed{s})."""
    name = chosen_checkpoint(Path(folder) / "selection.csv", rule)
    return Path(folder) / "epochs" / f"{name}.test.safetensors"


def tell(frame: pd.DataFrame) -> str:
    """One line per rule: what choosing would have gained over the last step, on the test split."""
    rows: Mapping[str, Any] = {rule: _choose(frame, rule) for rule in SELECTIONS}
    last = frame.loc[rows["last"]]
    column = f"test_{MEASURE}"
    text = [f"last: step {last['step']}, test t2v R@sum {last[column]:.1f}"]
    for rule in SPLIT_OF:
        if rows[rule] is not None:
            line = frame.loc[rows[rule]]
            text.append(
                f"{rule} - last: {line[column] - last[column]:+.1f} "
                f"({line['checkpoint']}, step {line['step']}, {line[column]:.1f})"
            )
    return "\n".join(text)


def write_selection(frame: pd.DataFrame, path: str | Path) -> None:
    """Write the lines as CSV, full precision."""
    with atomic_write(path) as handle:
        frame.to_csv(handle, index=False, lineterminator="\n")
