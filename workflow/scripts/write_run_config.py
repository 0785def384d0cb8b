"""Resolved settings of one run → config.json."""

from discovla.files import write_json

write_json(snakemake.output[0], snakemake.params.config)
