"""Resolved settings of one run → config.json."""

from discovla.scripting import logged_to
from discovla.storage.files import write_record

with logged_to(snakemake.log[0]):
    write_record(snakemake.output[0], snakemake.params.config)
