"""The demo's tables, times and paths → one page."""

from discovla.experiments import Experiments
from discovla.report.summary import write_summary
from discovla.scripting import logged_to

with logged_to(snakemake.log[0]):
    write_summary(
        Experiments.load(snakemake.config),
        "demo",
        tables=snakemake.input.tables,
        figure=snakemake.input.figure,
        output=snakemake.output[0],
    )
