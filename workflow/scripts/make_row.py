"""One row of a table and its metrics → JSON."""

from discovla.experiments import Experiments
from discovla.report.tables import build_row
from discovla.scripting import logged_to
from discovla.storage.files import write_record

with logged_to(snakemake.log[0]):
    wildcards = snakemake.wildcards
    experiments = Experiments.load(snakemake.config)
    row = experiments.row(wildcards.dataset, wildcards.table, wildcards.row)
    write_record(snakemake.output[0], build_row(experiments, row))
