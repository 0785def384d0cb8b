"""What a dataset's report page is made of; the workflow asks while Snakemake parses."""

from __future__ import annotations

from discovla.errors import UserError
from discovla.experiments import Experiments


def reported(experiments: Experiments, dataset: str) -> list[str]:
    """Tables and figures: the dataset's own list, else those that the paper prints for it.

    Raises:
        UserError: the list names a table or figure that is not there.
    """
    names = list(experiments.dataset(dataset).get("report", experiments.printed(dataset)))
    known = sorted([*experiments.tables, *experiments.figures])
    if unknown := [name for name in names if name not in known]:
        raise UserError(
            f"{experiments.folder}/datasets/{dataset}.yaml: report: no table or figure "
            f"{unknown[0]!r}; known: {known}"
        )
    return names


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
