"""Validation features of a method's grid → one line per choice, best first."""

from discovla.experiments import Experiments
from discovla.report.grid import build_grid, write_grid
from discovla.scripting import logged_to

with logged_to(snakemake.log[0]):
    experiments = Experiments.load(snakemake.config)
    grid = build_grid(experiments, snakemake.wildcards.dataset, snakemake.wildcards.method)
    write_grid(grid, snakemake.output[0])
