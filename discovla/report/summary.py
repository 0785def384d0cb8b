"""One page on what a dataset's targets gave, how long each stage took, and where everything is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from discovla.errors import UserError
from discovla.experiments import Experiments
from discovla.provenance import code_version
from discovla.report.tables import build_table, to_markdown
from discovla.storage.files import atomic_write

STAGES = ("pretrain", "world", "frames", "captions", "train", "features", "epochs")
"""Folders of benchmark files, in the order in which the workflow gets to them."""


def stage_times(folder: Path) -> pd.DataFrame:
    """Wall seconds, CPU seconds and peak memory of each stage, from Snakemake's benchmark files.

    Returns:
        One line per stage, in the order of the workflow: jobs, wall_s, cpu_s (sums over jobs),
        peak_mb (largest job).

    Raises:
        UserError: a damaged file, by name.
    """
    lines = []
    for path in sorted(folder.rglob("*.tsv")):
        stage = path.relative_to(folder).parts[0].removesuffix(".tsv")
        try:
            last = pd.read_csv(path, sep="\t", na_values="-").iloc[-1]
            lines.append((stage, 1, last["s"], last["cpu_time"], last["max_rss"]))
        except (OSError, ValueError, IndexError, KeyError) as error:
            raise UserError(f"{path}: not a benchmark file ({error}); remove it") from None
    frame = pd.DataFrame(lines, columns=["stage", "jobs", "wall_s", "cpu_s", "peak_mb"])
    sums = {"jobs": "sum", "wall_s": "sum", "cpu_s": "sum", "peak_mb": "max"}
    order = [s for s in STAGES if s in set(frame["stage"])]
    order += sorted(set(frame["stage"]) - set(STAGES))
    return frame.groupby("stage").agg(sums).loc[order].reset_index()


def write_summary(
    experiments: Experiments,
    dataset: str,
    *,
    tables: Sequence[str],
    figure: str,
    output: str,
    results: Path = Path("results"),
) -> None:
    """Write the page as Markdown."""
    times = stage_times(results / dataset / "benchmarks")
    total = times[["jobs", "wall_s", "cpu_s"]].sum()
    lines = [f"# {experiments.dataset(dataset)['title']}: what was run", ""]
    for path in tables:
        lines += [to_markdown(build_table(experiments, dataset, Path(path).stem, results))]
    lines += [
        f"Figure: [{Path(figure).stem}]({Path(figure).with_suffix('.svg').name})",
        "",
        "## Time per stage",
        "",
        "Sums over jobs, as measured by the workflow; jobs of a stage may run side by side.",
        "",
        "| stage | jobs | wall s | CPU s | peak MB |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.stage} | {row.jobs} | {row.wall_s:.0f} | {row.cpu_s:.0f} | {row.peak_mb:.0f} |"
        for row in times.itertuples()
    ]
    lines += [
        f"| all | {total.jobs:.0f} | {total.wall_s:.0f} | {total.cpu_s:.0f} | |",
        "",
        "## Where everything is",
        "",
        *(f"- `{path}`" for path in [*tables, figure, f"results/{dataset}/runs/"]),
        f"- `results/{dataset}/report.html`: everything on one page, to look at",
        f"- `results/{dataset}/captions/`: the pseudo captions",
        f"- `resources/{dataset}/`: annotations and frames",
        "",
        f"Code: {code_version()['commit'] or 'not a git checkout'}.",
        "",
    ]
    with atomic_write(output) as handle:
        handle.write("\n".join(lines))
