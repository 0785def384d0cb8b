"""Features of the test split → ranks and recalls, plain or post-processed."""

from discovla.retrieval.evaluate import evaluate_features
from discovla.scripting import logged_to
from discovla.storage.files import write_record

with logged_to(snakemake.log[0]):
    metrics = evaluate_features(
        snakemake.input.test,
        snakemake.input.get("bank"),
        post=snakemake.wildcards.post,
        **snakemake.params.post,
    )
    write_record(snakemake.output[0], metrics)
