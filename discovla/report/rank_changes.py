"""What a change of method does to single queries: their ranks in two rows of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from discovla.data.annotations.base import read_annotations
from discovla.errors import UserError
from discovla.experiments import Experiments, Row
from discovla.report.pictures import AWAY, NEARER, UNCHANGED, drawing, plain
from discovla.report.selection import chosen_features
from discovla.report.tables import POST, caveats
from discovla.retrieval.metrics import CUTS
from discovla.retrieval.ranked import Ranking, rank_queries
from discovla.storage.files import atomic_write

COLUMNS = [
    *("caption_id", "clip_id", "caption", "rank_before", "rank_after", "places_gained"),
    *("ranks_before", "ranks_after"),
]
_LISTED = 6
"""Queries that are written out below the picture, of each kind."""
_NOTE = 0.14
"""Inches of a line of notes."""


@dataclass(frozen=True)
class RankChanges:
    """Text-to-video ranks of every query in two rows; `frame` has `COLUMNS`.

    Ranks are means over seeds; `ranks_before` and `ranks_after` list those of each seed. Queries
    that gained most places come first.
    """

    table: str
    dataset: str
    before: str
    after: str
    """Labels of the rows."""
    seeds: tuple[int, int]
    """How many seeds each row has."""
    frame: pd.DataFrame
    notes: tuple[str, ...] = ()
    """What must be known of either row, such as a checkpoint chosen on the test set."""

    def crossings(self) -> dict[int, tuple[int, int]]:
        """Per K of R@K, how many queries entered the first K places, and how many left them."""
        before, after = self.frame["rank_before"], self.frame["rank_after"]
        return {
            k: (
                int((~_within(before, k) & _within(after, k)).sum()),
                int((_within(before, k) & ~_within(after, k)).sum()),
            )
            for k in CUTS
        }

    def counts(self) -> dict[str, int]:
        """Queries that came `nearer` the top, moved `away` from it, or stand where they were."""
        gained = self.frame["places_gained"]
        return {
            "nearer": int((gained > 0).sum()),
            "away": int((gained < 0).sum()),
            "unchanged": int((gained == 0).sum()),
        }


def _within(ranks: pd.Series, k: int) -> pd.Series:
    """Whether R@K counts them: as `metrics.summarise`, also for a tied query between two places."""
    return ranks < k + 1


def build_rank_changes(
    experiments: Experiments,
    dataset: str,
    table: str,
    before: str,
    after: str,
    *,
    results: Path = Path("results"),
    resources: Path = Path("resources"),
) -> RankChanges:
    """Rank every test query in two rows of a table.

    Args:
        experiments: what the rows are.
        dataset, table: where they stand.
        before, after: their ids.
        results, resources: folders of the workflow.

    Raises:
        UserError: no such row; a row that is only quoted; features that are absent, damaged, or of
            other queries.
    """
    rows = [experiments.row(dataset, table, name) for name in (before, after)]
    found = [_rankings(experiments, row, results) for row in rows]
    first = found[0][0]
    for row, rankings in zip(rows, found, strict=True):
        for ranking in rankings:
            if ranking.metadata["data_id"] != first.metadata["data_id"]:
                raise UserError(
                    f"{dataset}/{table}/{row.row}: measured on other data than {before} (data_id "
                    f"{ranking.metadata['data_id']}, not {first.metadata['data_id']}): ranks "
                    "cannot be compared"
                )
    captions = read_annotations(resources / dataset / "annotations.parquet")
    texts = dict(zip(captions["caption_id"], captions["caption"], strict=True))
    frame = pd.DataFrame(
        {
            "caption_id": first.caption_ids,
            "clip_id": [first.clip_ids[column] for column in first.truth],
            "caption": [texts.get(name, "") for name in first.caption_ids],
        }
    )
    for name, rankings in zip(("before", "after"), found, strict=True):
        ranks = np.stack([ranking.ranks for ranking in rankings])
        frame[f"rank_{name}"] = ranks.mean(0)
        frame[f"ranks_{name}"] = [" ".join(f"{rank:g}" for rank in line) for line in ranks.T]
    frame["places_gained"] = frame["rank_before"] - frame["rank_after"]
    frame = frame.sort_values("places_gained", ascending=False, kind="stable")[COLUMNS]
    seeds = (len(found[0]), len(found[1]))
    return RankChanges(
        table,
        dataset,
        rows[0].label,
        rows[1].label,
        seeds,
        frame.reset_index(drop=True),
        tuple(f"{row.label}: {note}" for row in rows for note in _notes(row)),
    )


def _notes(row: Row) -> list[str]:
    return [*caveats(row), *([POST[row.post]] if row.post in POST else [])]


def _rankings(experiments: Experiments, row: Row, results: Path) -> list[Ranking]:
    """One ranking per seed of a row."""
    if row.run is None:
        raise UserError(
            f"{row.dataset}/{row.table}/{row.row}: only quoted from the paper, so there are no "
            "ranks of single queries"
        )
    folders = [Path(path).parent for path in experiments.metrics_files(row, str(results))]
    parameters: Mapping[str, Any] = experiments.defaults["post"].get(row.post, {})
    return [
        rank_queries(
            folder / "features.test.safetensors"
            if row.selection == "last"
            else chosen_features(folder, row.selection),
            folder / "features.bank.safetensors" if row.post == "qbnorm" else None,
            post=row.post,  # type: ignore[arg-type]
            **parameters,
        )
        for folder in folders
    ]


def write_rank_changes(changes: RankChanges, csv: str | Path, pictures: Sequence[str]) -> None:
    """Write the queries as CSV and the picture under each name (`.svg` or `.png`)."""
    with atomic_write(csv) as handle:
        changes.frame.to_csv(handle, index=False, lineterminator="\n")
    for path in pictures:
        draw(changes, path)


def draw(changes: RankChanges, path: str | Path) -> None:
    """Ranks against ranks, how many queries crossed each cut, and those that moved most."""
    heights = [4.44, 2.96, *([0.1 + _NOTE * len(changes.notes)] if changes.notes else [])]
    with drawing(path, (9.6, sum(heights)), dpi=200) as figure:
        upper, lower, *below = figure.subfigures(len(heights), 1, height_ratios=heights)
        scatter, bars = upper.subplots(1, 2, width_ratios=[1.15, 1])
        _scatter(scatter, changes)
        _bars(bars, changes)
        over = " and ".join(f"{n} seed{'s' if n > 1 else ''}" for n in dict.fromkeys(changes.seeds))
        asked = f"{len(changes.frame):,} queries on {changes.dataset}, {over}"
        title = f"{changes.before} → {changes.after} · text-to-video, {asked}"
        upper.suptitle(plain(title, 110, 2), fontsize=11, weight="bold")
        left, right = lower.subplots(1, 2)
        gained = changes.frame[changes.frame["places_gained"] > 0].head(_LISTED)
        lost = changes.frame[changes.frame["places_gained"] < 0].tail(_LISTED)[::-1]
        _list(left, gained, "▲ came nearer the top by most places", NEARER)
        _list(right, lost, "▼ moved away by most places", AWAY)
        for part in below:
            notes = "\n".join(plain(note, 150, 1) for note in changes.notes)
            part.text(0.02, 1, notes, va="top", ha="left", fontsize=7, color="0.25")


def _scatter(panel: Any, changes: RankChanges) -> None:
    """Both ranks on logarithmic axes; queries in the same place make one larger mark."""
    frame, counts = changes.frame, changes.counts()
    places = frame.groupby(["rank_before", "rank_after"]).size().reset_index(name="queries")
    total = len(frame)
    kinds = (
        ("nearer", NEARER, "^", places["rank_after"] < places["rank_before"]),
        ("away", AWAY, "v", places["rank_after"] > places["rank_before"]),
        ("unchanged", UNCHANGED, "o", places["rank_after"] == places["rank_before"]),
    )
    for kind, colour, marker, those in kinds:
        some = places[those]
        label = f"{kind} {counts[kind]:,} ({counts[kind] / total:.0%})"
        panel.scatter(
            some["rank_before"],
            some["rank_after"],
            s=14 * np.sqrt(some["queries"]),
            **{"color": colour, "marker": marker, "alpha": 0.65, "linewidths": 0, "label": label},
        )
    largest = float(frame[["rank_before", "rank_after"]].max().max()) * 1.3
    panel.plot([0.8, largest], [0.8, largest], color="0.45", linewidth=0.8, linestyle="--")
    panel.set(xscale="log", yscale="log", xlim=(0.8, largest), ylim=(0.8, largest))
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter("{x:g}")
    panel.set_xlabel(plain(f"rank with {changes.before}", 50, 1))
    panel.set_ylabel(plain(f"rank with {changes.after}", 40, 1))
    panel.grid(alpha=0.25)
    # Above the panel: inside, it would hide the queries that moved most.
    style: dict[str, Any] = {
        "fontsize": 8,
        "frameon": False,
        "columnspacing": 1,
        "handletextpad": 0,
    }
    panel.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, **style)


def _bars(panel: Any, changes: RankChanges) -> None:
    """What a change of R@K is made of: queries that entered and left the first K places."""
    crossings = changes.crossings()
    widest = max([1, *(max(pair) for pair in crossings.values())])
    for place, (entered, left) in enumerate(crossings.values()):
        panel.barh(place, entered, color=NEARER, height=0.6, hatch="//", edgecolor="white")
        panel.barh(place, -left, color=AWAY, height=0.6, hatch="\\\\", edgecolor="white")
        panel.text(entered + widest * 0.03, place, f"+{entered}", va="center", fontsize=9)
        panel.text(-left - widest * 0.03, place, f"−{left}", va="center", ha="right", fontsize=9)
    labels = [f"R@{k}\nnet {entered - left:+d}" for k, (entered, left) in crossings.items()]
    panel.set_yticks(range(len(crossings)), labels)
    panel.invert_yaxis()
    panel.set_xlim(-widest * 1.35, widest * 1.35)
    panel.axvline(0, color="0.3", linewidth=0.8)
    panel.set_xticks([])
    panel.set_title("queries that left (−) and entered (+) the first K places", fontsize=8)
    panel.spines[["top", "right", "bottom", "left"]].set_visible(False)
    panel.tick_params(length=0)


def _list(panel: Any, queries: pd.DataFrame, title: str, colour: str) -> None:
    panel.set_axis_off()
    panel.text(
        0, 1, title, transform=panel.transAxes, fontsize=9, weight="bold", color=colour, va="top"
    )
    for number, line in enumerate(queries.itertuples()):
        place = 0.88 - number * 0.15
        ranks = f"{line.rank_before:g} → {line.rank_after:g}"
        panel.text(0.16, place, ranks, transform=panel.transAxes, fontsize=8, va="top", ha="right")
        text = plain(line.caption, 62, 2)
        panel.text(0.19, place, text, transform=panel.transAxes, fontsize=8, va="top")
