"""Features of the checkpoint that a rule chooses → ranks and recalls."""

from pathlib import Path

from discovla.report.selection import chosen_checkpoint
from discovla.retrieval.evaluate import evaluate_features
from discovla.scripting import logged_to
from discovla.storage.files import write_record

with logged_to(snakemake.log[0]):
    rule = snakemake.wildcards.selection
    name = chosen_checkpoint(snakemake.input.selection, rule)
    metrics = evaluate_features(
        Path(snakemake.input.epochs) / f"{name}.test.safetensors",
        post=snakemake.wildcards.post,
        selection=rule,
        **snakemake.params.post,
    )
    write_record(snakemake.output[0], metrics)
