"""Tables: one line per row, measured mean and std over seeds beside the printed number."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from discovla.errors import UserError
from discovla.experiments import Experiments, Row
from discovla.storage.files import atomic_write, read_record

RECONSTRUCTION = "reconstruction"
TEST_BEST = "test_best: checkpoint chosen on the test set itself, an upper bound and no result."
FAST = {
    ("dtype", "bf16"): "Trained in bfloat16 (dtype: bf16), not in float32.",
    ("augment_on", "device"): "Inputs made on the device (augment_on: device), near Pillow's.",
}
"""What is said of a row whose setting has that value, wherever it was set."""
POST = {
    "dsl": "DSL uses all test queries together (transductive): not comparable with plain numbers.",
    "qbnorm": "QB-Norm re-scores with a bank of training captions; it uses no other test queries "
    "(not transductive).",
}
NAMES = {"t2v": "Text-to-video", "v2t": "Video-to-text"}
DIRECTIONS = tuple(NAMES)
METRICS = ("R@1", "R@5", "R@10", "R@sum", "MnR")
CELLS = [
    f"{d}_{m}{kind}"
    for d in DIRECTIONS
    for m in METRICS
    for kind in ("", "_std", "_paper", "_diff")
]
COLUMNS = [
    *("table", "row", "label", "backbone", "method", "recipe", "protocol", "provenance"),
    *("implementation", "selected_on", "params_paper", "params"),
    *CELLS,
    *("n_seeds", "seeds", "n_test", "ties", "selection", "post", "captions"),
    *("data_id", "run_id", "commit", "footnote"),
]
TEXT = {
    *("table", "row", "label", "backbone", "method", "recipe", "protocol", "provenance", "seeds"),
    *("implementation", "selected_on"),
    *("ties", "selection", "post", "captions", "data_id", "run_id", "commit", "footnote"),
}
COUNTS = ("params", "n_seeds", "n_test")


@dataclass(frozen=True)
class Table:
    """A table ready to be written: `frame` has the columns of `COLUMNS`, one line per row."""

    title: str
    dataset: str
    frame: pd.DataFrame
    notes: tuple[str, ...]


def build_row(
    experiments: Experiments, row: Row, results: Path = Path("results")
) -> dict[str, Any]:
    """All columns of one row; a cell that was not measured or not printed is None, never 0."""
    measured = [read_record(path) for path in experiments.metrics_files(row, str(results))]
    line: dict[str, Any] = dict.fromkeys(COLUMNS)
    line |= {
        "table": row.table,
        "row": row.row,
        "label": row.label,
        "backbone": row.backbone,
        "provenance": "quoted",
        "params_paper": row.params_paper,
        "post": row.post,
        "footnote": " ".join(row.footnotes) or None,
    }
    if row.run is not None:
        line |= _identity(row, measured)
    for direction in DIRECTIONS:
        for metric in METRICS:
            values = [
                found[direction][metric] for found in measured if found.get(direction) is not None
            ]
            printed = row.paper.get(direction, {}).get(metric)
            line |= _cell(f"{direction}_{metric}", values, printed)
    return line


def _identity(row: Row, measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    assert row.run is not None
    settings = row.run.settings
    first = measured[0]
    left_out = [
        f"{len(first[key])} {split} clip(s) without frames left out."
        for key, split in (("excluded", "test"), ("train_excluded", "training"))
        if first[key]
    ]
    return {
        "method": settings.method,
        "recipe": row.recipe,
        "protocol": row.protocol,
        "provenance": _provenance(row),
        "implementation": row.implementation,
        "selected_on": row.selected_on,
        "params": first.get("parameters"),
        "n_seeds": len(measured),
        "seeds": " ".join(str(found["seed"]) for found in measured),
        "n_test": first["n_queries_t2v"],
        "ties": "/".join(str(sum(found["ties"][d] or 0 for found in measured)) for d in DIRECTIONS),
        "selection": first["selection"]["rule"],
        "captions": settings.captions if settings.needs_captions else None,
        "data_id": _single("data_id", row, measured),
        "train_data_id": _single("train_data_id", row, measured),
        "run_id": row.run.run_id,
        "commit": " ".join(sorted({_version(found["code"]) for found in measured})),
        "footnote": " ".join([*row.footnotes, *caveats(row), *left_out]) or None,
    }


def caveats(row: Row) -> list[str]:
    """What must stand beside a row's numbers wherever they are shown."""
    found = [TEST_BEST] if row.selection == "test_best" else []
    if row.run is not None and row.run.trains:
        settings = row.run.settings
        found += [text for (name, value), text in FAST.items() if getattr(settings, name) == value]
    return found


def _provenance(row: Row) -> str:
    assert row.run is not None
    if row.implementation == RECONSTRUCTION:
        return RECONSTRUCTION
    return "trained" if row.run.trains else "evaluated"


def _version(code: Mapping[str, Any]) -> str:
    """Commit of the code, `+` where files differed from it, or a digest of the package."""
    commit = code["commit"]
    return f"{commit[:12]}{'+' if code['dirty'] else ''}" if commit else code["package_sha"][:12]


def _single(key: str, row: Row, measured: Sequence[Mapping[str, Any]]) -> Any:
    values = {found[key] for found in measured}
    if len(values) > 1:
        raise UserError(
            f"{row.dataset}/{row.table}/{row.row}: its seeds were measured on different data "
            f"({key} {sorted(values)}); remove results/{row.dataset}/runs/{row.run.run_id} "  # type: ignore[union-attr]
            "and run again"
        )
    return values.pop()


def _cell(name: str, values: Sequence[float], printed: float | None) -> dict[str, float | None]:
    mean = statistics.fmean(values) if values else None
    return {
        name: mean,
        f"{name}_std": statistics.stdev(values) if len(values) > 1 else None,
        f"{name}_paper": printed,
        f"{name}_diff": mean - printed if mean is not None and printed is not None else None,
    }


def build_table(
    experiments: Experiments, dataset: str, name: str, results: Path = Path("results")
) -> Table:
    """A whole table in the paper's order.

    Raises:
        UserError: rows were measured on different data.
    """
    lines = [build_row(experiments, row, results) for row in experiments.rows(dataset, name)]
    if not lines:
        raise UserError(f"{dataset}/{name}: no row has a method to train or a printed number here")
    for key in ("data_id", "train_data_id"):
        _refuse_mixture(f"{dataset}/{name}", key, lines)
    frame = to_frame(lines)
    spec = experiments.tables.get(name) or experiments.figures[name]
    return Table(spec["title"], dataset, frame, notes(frame))


def to_frame(lines: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as `build_row` gives them under one another, each column of its own type."""
    frame = pd.DataFrame(lines, columns=COLUMNS)
    for column in COLUMNS:
        kind = "string" if column in TEXT else "Int64" if column in COUNTS else "float64"
        frame[column] = frame[column].astype(kind)
    return frame


def read_table(path: str | Path, title: str, dataset: str) -> Table:
    """A table as `write_table` wrote its CSV.

    Raises:
        UserError: absent, damaged, or of another version's columns.
    """
    again = "remove it and make it again"
    try:
        # Only an empty cell is nothing: "None" is the name of a row of Table 7.
        text = dict.fromkeys(TEXT, "string")
        frame = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])
        frame = frame[COLUMNS].astype(dict.fromkeys(COUNTS, "Int64"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: not a table of this version ({error}); {again}") from None
    return Table(title, dataset, frame, notes(frame))


def _refuse_mixture(table: str, key: str, lines: Sequence[Mapping[str, Any]]) -> None:
    data = {line[key]: line["row"] for line in lines if line.get(key)}
    if len(data) > 1:
        raise UserError(
            f"{table} would mix results on different data ({key}): "
            + ", ".join(f"{data_id} (row {row})" for data_id, row in data.items())
            + ". Make all of them on the same annotations and clips, or quote the others."
        )


def notes(frame: pd.DataFrame) -> tuple[str, ...]:
    """What a reader must know of a table's rows together."""
    found = []
    commits = sorted({commit for text in frame["commit"].dropna() for commit in text.split()})
    if len(commits) > 1:
        found.append(f"Rows were made by different versions of the code: {', '.join(commits)}.")
    found += [text for post, text in POST.items() if (frame["post"] == post).any()]
    if (frame["provenance"] == RECONSTRUCTION).any():
        labels = ", ".join(frame.loc[frame["provenance"] == RECONSTRUCTION, "label"].unique())
        found.append(f"{labels}: our reconstruction; what is published does not fix the method.")
    if (frame["selected_on"] == "not tuned").any():
        labels = ", ".join(frame.loc[frame["selected_on"] == "not tuned", "label"].unique())
        found.append(f"Learning rate not tuned: {labels}.")
    if (frame["provenance"] == "quoted").any():
        found.append("Rows without a measured number are quoted from the paper, not trained here.")
    return tuple(found)


def write_table(table: Table, *, csv: str, md: str, tex: str) -> None:
    """Write full precision to CSV, one decimal to Markdown and LaTeX."""
    with atomic_write(csv) as handle:
        table.frame.to_csv(handle, index=False, lineterminator="\n")
    with atomic_write(md) as handle:
        handle.write(to_markdown(table))
    with atomic_write(tex) as handle:
        handle.write(to_latex(table))


def _shown(table: Table) -> tuple[list[str], list[list[str]]]:
    """Head and lines of the short form: measured ± std, the printed number in brackets."""
    cells = [
        f"{d}_{m}"
        for d in DIRECTIONS
        for m in METRICS
        if table.frame[[f"{d}_{m}", f"{d}_{m}_paper"]].notna().any(axis=None)
    ]
    lines = []
    for _, line in table.frame.iterrows():
        marks = "*" if pd.notna(line["footnote"]) else ""
        params = "" if pd.isna(line["params"]) else f"{line['params']:,}"
        if pd.notna(line["params_paper"]):
            params = f"{params} [{line['params_paper']:g} M]".strip()
        shown = [f"{line['label']}{marks}", str(line["backbone"]), params]
        lines.append(shown + [_number(line, cell) for cell in cells])
    return ["", "backbone", "trained", *(cell.replace("_", " ") for cell in cells)], lines


def _number(line: pd.Series, cell: str) -> str:
    text = "" if pd.isna(line[cell]) else f"{line[cell]:.1f}"
    if text and pd.notna(line[f"{cell}_std"]):
        text += f" ± {line[f'{cell}_std']:.1f}"
    if pd.notna(line[f"{cell}_paper"]):
        text = f"{text} [{line[f'{cell}_paper']:.1f}]".strip()
    return text


def _escape(text: str, pairs: Mapping[str, str]) -> str:
    return "".join(pairs.get(letter, letter) for letter in text)


def _footnotes(table: Table) -> list[str]:
    noted = table.frame[table.frame["footnote"].notna()]
    return [f"{line['label']}: {line['footnote']}" for _, line in noted.iterrows()]


def to_markdown(table: Table) -> str:
    """The short form as a Markdown table; printed numbers stand in brackets."""
    pairs = {"|": "\\|", "<": "&lt;", ">": "&gt;", "&": "&amp;", "\n": " "}
    head, lines = _shown(table)
    rows = [
        "| " + " | ".join(_escape(cell, pairs) for cell in line) + " |" for line in [head, *lines]
    ]
    rows.insert(1, "|" + "---|" * len(head))
    seeds = table.frame["n_seeds"].max()
    over = "" if pd.isna(seeds) else f" over {seeds} seed{'s' if seeds > 1 else ''}"
    printed = table.frame[[f"{d}_{m}_paper" for d in DIRECTIONS for m in METRICS]]
    brackets = "; the paper's numbers in brackets" if printed.notna().any(axis=None) else ""
    intro = f"Measured here{over}{brackets}."
    notes = [
        f"- {_escape(note, pairs)}"
        for note in [*table.notes, *(f"\\* {n}" for n in _footnotes(table))]
    ]
    return "\n".join(
        [f"**{table.title}** (on {table.dataset})", "", intro, "", *rows, "", *notes, ""]
    )


def to_latex(table: Table) -> str:
    """The short form as a booktabs table, its metrics grouped by direction, notes below it."""
    pairs = {letter: f"\\{letter}" for letter in "&%$#_{}"} | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "\n": " ",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "α": r"$\alpha$",
        "β": r"$\beta$",
    }
    head, lines = _shown(table)
    groups, rules = [], []
    for direction, name in NAMES.items():
        places = [n for n, cell in enumerate(head, 1) if cell.startswith(f"{direction} ")]
        if places:
            groups.append(rf"\multicolumn{{{len(places)}}}{{c}}{{{name}}}")
            rules.append(rf"\cmidrule(lr){{{places[0]}-{places[-1]}}}")
    head = [cell.removeprefix("t2v ").removeprefix("v2t ") for cell in head]
    for line in lines:  # after the \\ of the line before, a star or a bracket would be its option
        line[0] = _escape(line[0], pairs)
        line[0] = f"{{}}{line[0]}" if line[0].startswith(("[", "*")) else line[0]
        line[1:] = [_escape(cell, pairs) for cell in line[1:]]
    body = [" & ".join(line) + r" \\" for line in [head, *lines]]
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}; printed numbers in brackets",
            r"\begin{tabular}{" + "l" * 2 + "r" * (len(head) - 2) + "}",
            r"\toprule",
            *([" & & & " + " & ".join(groups) + r" \\", "".join(rules)] if groups else []),
            body[0],
            r"\midrule",
            *body[1:],
            r"\bottomrule",
            r"\end{tabular}",
            *(
                rf"\par{{\footnotesize {_escape(' '.join(note.split()), pairs)}}}"
                for note in [*table.notes, *(f"* {note}" for note in _footnotes(table))]
            ),
            "",
        ]
    )
