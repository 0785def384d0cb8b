"""The jobs behind tables and figures: trainings, evaluations, captions, frames."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from discovla.experiments import Experiments, Row


@dataclass(frozen=True)
class Work:
    """The jobs behind a target, per seed, from nothing; equal runs of its rows count once.

    Attributes:
        target: the file to ask for.
        title: what it shows.
        rows: its rows or points.
        quoted: those among them of which the paper's numbers are quoted, and nothing is trained.
        trainings: trainings.
        evaluations: features that are extracted (test split, and the bank where QB-Norm asks).
        caption_shards: jobs that write pseudo captions.
        frame_shards: jobs that decode videos.
    """

    target: str
    title: str
    rows: int
    quoted: int
    trainings: int
    evaluations: int
    caption_shards: int
    frame_shards: int


def work(experiments: Experiments, dataset: str, name: str) -> Work:
    """The jobs of one table or figure."""
    spec = experiments.tables.get(name) or experiments.figures[name]
    target = f"results/{dataset}/{name}.csv"
    return _count(experiments, dataset, target, spec["title"], experiments.rows(dataset, name))


def whole(experiments: Experiments, dataset: str) -> Work:
    """The jobs of everything the paper prints for a dataset: shared runs count once."""
    rows = [row for name in experiments.printed(dataset) for row in experiments.rows(dataset, name)]
    return _count(experiments, dataset, "all of these", "", rows)


def _count(
    experiments: Experiments, dataset: str, target: str, title: str, rows: Iterable[Row]
) -> Work:
    rows = list(rows)
    measured = [row for row in rows if row.run is not None]
    runs = {row.run.run_id: row.run for row in measured if row.run is not None}
    banks = {row.run.run_id for row in measured if row.run and row.post == "qbnorm"}
    shards = experiments.dataset(dataset)["shards"]
    return Work(
        target=target,
        title=title,
        rows=len(rows),
        quoted=len(rows) - len(measured),
        trainings=sum(run.trains for run in runs.values()),
        evaluations=len(runs) + len(banks),
        caption_shards=shards * len({run.captions_id for run in runs.values()} - {None}),
        frame_shards=shards * len({run.frames_id for run in runs.values()}),
    )
