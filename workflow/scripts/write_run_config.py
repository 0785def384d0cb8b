"""Resolved settings of one run → config.json."""

from discovla.files import write_json
from discovla.scripting import logged_to

with logged_to(snakemake.log[0]):
    write_json(snakemake.output[0], snakemake.params.config)
