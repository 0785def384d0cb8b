# Bringing what is public: one target per source of config/sources.yaml, for example
# `snakemake msrvtt_annotations --cores 1`.
#
# These rules have no output: `discovla fetch` itself sees what is there, so that a removed file is
# brought again, and Snakemake does not remove a download that was interrupted. Nor are the files an
# input of other rules: files of the user are not watched.
from discovla.config import load_yaml

for source in load_yaml("config/sources.yaml"):

    rule:
        name:
            source
        log:
            f"logs/fetch/{source}.log",
        localrule: True
        conda:
            "../../environment.yml"
        params:
            source=source,
        shell:
            "python -m discovla fetch {params.source} 2>&1 | tee {log}"
