"""Features of two rows of a table → ranks of single queries as CSV, SVG and PNG."""

from discovla.experiments import Experiments
from discovla.report.rank_changes import build_rank_changes, write_rank_changes
from discovla.scripting import logged_to

with logged_to(snakemake.log[0]):
    names = [snakemake.wildcards[key] for key in ("dataset", "table", "before", "after")]
    changes = build_rank_changes(Experiments.load(snakemake.config), *names)
    out = snakemake.output
    write_rank_changes(changes, out.csv, [out.svg, out.png])
