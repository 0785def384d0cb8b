"""The demo's tables, times and paths → one page."""

from discovla.experiments import Experiments
from discovla.report.summary import write_summary

write_summary(
    Experiments.load(snakemake.config),
    "demo",
    tables=snakemake.input.tables,
    figure=snakemake.input.figure,
    output=snakemake.output[0],
)
