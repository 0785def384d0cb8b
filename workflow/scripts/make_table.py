"""Rows of one table and their metrics → CSV, Markdown and LaTeX."""

from discovla.experiments import Experiments
from discovla.report.tables import build_table, write_table
from discovla.scripting import logged_to

with logged_to(snakemake.log[0]):
    experiments = Experiments.load(snakemake.config)
    table = build_table(experiments, snakemake.wildcards.dataset, snakemake.wildcards.table)
    out = snakemake.output
    write_table(table, csv=out.csv, md=out.md, tex=out.tex)
