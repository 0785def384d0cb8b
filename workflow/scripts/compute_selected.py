"""Features of the checkpoint that a rule chooses → ranks and recalls."""

from pathlib import Path

from discovla.report.selection import chosen_features
from discovla.retrieval.evaluate import evaluate_features
from discovla.scripting import logged_to
from discovla.storage.files import write_record

with logged_to(snakemake.log[0]):
    rule = snakemake.wildcards.selection
    metrics = evaluate_features(
        chosen_features(Path(snakemake.input.selection).parent, rule),
        post=snakemake.wildcards.post,
        selection=rule,
        **snakemake.params.post,
    )
    write_record(snakemake.output[0], metrics)
