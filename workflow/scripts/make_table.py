"""Rows of one table and their metrics → CSV, Markdown and LaTeX."""

from discovla.experiments import Experiments
from discovla.report.tables import build_table, write_table

experiments = Experiments.load(snakemake.config)
table = build_table(experiments, snakemake.wildcards.dataset, snakemake.wildcards.table)
write_table(table, csv=snakemake.output.csv, md=snakemake.output.md, tex=snakemake.output.tex)
