"""Points of one sweep and their metrics → CSV, SVG and PNG."""

from discovla.experiments import Experiments
from discovla.report.figures import build_figure, write_figure
from discovla.scripting import logged_to

with logged_to(snakemake.log[0]):
    experiments = Experiments.load(snakemake.config)
    figure = build_figure(experiments, snakemake.wildcards.dataset, snakemake.wildcards.figure)
    out = snakemake.output
    write_figure(figure, csv=out.csv, pictures=[out.svg, out.png])
