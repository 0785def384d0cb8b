"""Resolved settings of one run → config.json."""

from discovla.files import write_record
from discovla.scripting import logged_to

with logged_to(snakemake.log[0]):
    write_record(snakemake.output[0], snakemake.params.config)
