"""What a finished rehearsal must have left, fact by fact, and its table for the screen."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from discovla.data.annotations import read_metadata
from discovla.data.clips import read_clips
from discovla.experiments import Experiments, Run
from discovla.storage.files import read_json
from tests.rehearsal.cut import STEPS, Cut


class Fact(NamedTuple):
    """Something found, beside what it must be."""

    name: str
    found: Any
    expected: Any

    def __str__(self) -> str:
        if self.found == self.expected:
            return f"ok     {self.name}: {self.found}"
        return f"WRONG  {self.name}: {self.found}, expected {self.expected}"


def facts(folder: Path, cut: Cut) -> list[Fact]:
    """All facts of a finished rehearsal in `folder`."""
    experiments = Experiments.load(folder=folder / "config")
    runs = {row.row: row.run for row in experiments.rows(cut.dataset, cut.table) if row.run}
    table = pd.read_csv(folder / cut.target)
    return [
        *_of_data(folder, cut),
        *_of_captions(folder, cut, runs),
        *_of_table(table, cut, runs),
        *_of_metrics(folder, cut, runs),
    ]


def _of_data(folder: Path, cut: Cut) -> Iterator[Fact]:
    resources = folder / "resources" / cut.dataset
    counts = read_metadata(resources / "annotations.parquet")["counts"]
    yield Fact("clips and captions read", counts, cut.counts)
    clips = read_clips(resources / "clips.parquet")
    for status, expected in (("missing", cut.missing), ("unreadable", cut.unreadable)):
        yield Fact(f"{status} clips", list(clips["clip_id"][clips["status"] == status]), expected)


def _of_captions(folder: Path, cut: Cut, runs: dict[str, Run]) -> Iterator[Fact]:
    (captions_id,) = {run.captions_id for run in runs.values() if run.captions_id}
    path = folder / "results" / cut.dataset / "captions" / f"{captions_id}.parquet"
    captions = pd.read_parquet(path)
    usable = {film.clip_id for film in cut.of_split("train") if film.usable}
    yield Fact("clips with pseudo captions", set(captions["clip_id"]) == usable, True)
    per_caption = set(captions.groupby("caption_id")["position"].nunique())
    yield Fact("pseudo captions per video caption", per_caption, {cut.frames})


def _of_table(table: pd.DataFrame, cut: Cut, runs: dict[str, Run]) -> Iterator[Fact]:
    measured = table[table["run_id"].notna()].set_index("row")
    yield Fact("rows measured", measured["provenance"].to_dict(), dict(cut.provenance))
    quoted = set(table["provenance"][table["run_id"].isna()])
    yield Fact("provenance of the other rows", quoted, {"quoted"})
    usable = sum(film.usable for film in cut.of_split("test"))
    yield Fact("n_test", set(measured["n_test"].astype(int)), {usable})
    yield Fact("number of data_ids", measured["data_id"].nunique(), 1)
    with_captions = set(measured.index[measured["captions"].notna()])
    expected = {row for row, run in runs.items() if run.settings.method == "discovla"}
    yield Fact("rows trained with pseudo captions", with_captions, expected)
    sums = [measured[f"{d}_R@sum"] for d in ("t2v", "v2t")]
    inside = all(math.isfinite(v) and 0 <= v <= 300 for column in sums for v in column)
    yield Fact("every R@sum lies in 0 to 300", inside, True)


def _of_metrics(folder: Path, cut: Cut, runs: dict[str, Run]) -> Iterator[Fact]:
    lost = sorted(film.clip_id for film in cut.of_split("test") if not film.usable)
    for row, run in runs.items():
        place = folder / "results" / cut.dataset / "runs" / run.run_id
        settings = read_json(place / "config.json")["settings"]
        limits = (settings["frames"], settings["words"])
        yield Fact(f"{row}: frames and words", limits, (cut.frames, cut.words))
        (metrics,) = place.glob("seed*/metrics.none.json")
        yield Fact(f"{row}: clips left out", read_json(metrics)["excluded"], lost)
        if run.trains:
            curve = pd.read_csv(metrics.parent / "curve.csv")
            moved = curve["grad_norm"].between(0, math.inf, inclusive="neither")
            yield Fact(f"{row}: steps with a finite gradient", int(moved.sum()), STEPS)


def describe(table: Path) -> str:
    """The finished table for the screen, quoted rows included."""
    columns = ["label", "backbone", "provenance", "n_test", "captions", "t2v_R@1", "t2v_R@sum"]
    columns += ["v2t_R@sum", "t2v_MnR", "params", "run_id"]
    frame = pd.read_csv(table)[columns].round(2)
    frame = frame.astype({"n_test": "Int64", "params": "Int64"})
    return frame.astype(object).where(frame.notna(), "-").to_string(index=False)
