"""Features of the test split → ranks and recalls, plain or post-processed."""

from discovla.files import write_json
from discovla.retrieval.evaluate import evaluate_features

write_json(
    snakemake.output[0],
    evaluate_features(
        snakemake.input.test,
        snakemake.input.get("bank"),
        post=snakemake.wildcards.post,
        **snakemake.params.post,
    ),
)
