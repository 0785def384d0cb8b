"""What a dataset's report page is made of; the workflow asks while Snakemake parses."""

from __future__ import annotations

from discovla.experiments import Experiments


def reported(experiments: Experiments, dataset: str) -> list[str]:
    """Tables and figures: the dataset's own list, else those that the paper prints for it."""
    return list(experiments.dataset(dataset).get("report", experiments.printed(dataset)))


def compared(experiments: Experiments, dataset: str) -> list[tuple[str, str, str]]:
    """(table, row before, row after): pairs under `compare` whose rows are both measured here.

    Raises:
        UserError: a table or row that is not known.
    """
    return [
        (table, before, after)
        for table in reported(experiments, dataset)
        for before, after in experiments.tables.get(table, {}).get("compare", [])
        if all(experiments.row(dataset, table, name).run for name in (before, after))
    ]
