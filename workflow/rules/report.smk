# What people look at: one page per dataset, ranks of single queries, best and worst retrievals.


rule report_page:
    """Everything a dataset gave, in one file that needs no network."""
    input:
        "results/{dataset}/check.json",
        report_parts,
    output:
        report(
            "results/{dataset}/report.html",
            caption="../report/page.rst",
            category="Report",
            labels={"dataset": "{dataset}"},
        ),
    log:
        "logs/{dataset}/report.log",
    conda:
        "../../environment.yml"
    script:
        "../scripts/write_report.py"


rule compare:
    """Ranks of every test query in two rows of a table."""
    input:
        features=compared_features,
        annotations="resources/{dataset}/annotations.parquet",
    output:
        csv="results/{dataset}/compare/{table}/{before}..{after}.csv",
        svg=report(
            "results/{dataset}/compare/{table}/{before}..{after}.svg",
            caption="../report/compare.rst",
            category="Rank changes",
            labels={"dataset": "{dataset}", "rows": "{table}: {before} to {after}"},
        ),
        png="results/{dataset}/compare/{table}/{before}..{after}.png",
    log:
        "logs/{dataset}/compare/{table}/{before}..{after}.log",
    conda:
        "../../environment.yml"
    script:
        "../scripts/compare_ranks.py"


rule gallery:
    """Queries with the best and the worst ranks, with frames of the videos found."""
    input:
        features="results/{dataset}/runs/{run_id}/seed{seed}/features.test.safetensors",
        annotations="resources/{dataset}/annotations.parquet",
        frames=frame_shards,
    output:
        html="results/{dataset}/runs/{run_id}/seed{seed}/gallery.html",
        png=report(
            "results/{dataset}/runs/{run_id}/seed{seed}/gallery.png",
            caption="../report/gallery.rst",
            category="Retrievals",
            labels={"dataset": "{dataset}", "run": "{run_id}, seed {seed}"},
        ),
    log:
        "logs/{dataset}/runs/{run_id}/seed{seed}.gallery.log",
    conda:
        "../../environment.yml"
    params:
        frames=lambda wildcards, input: Path(input.frames[0]).parent,
    shell:
        "python -m discovla gallery {input.features} --annotations {input.annotations} "
        "--frames {params.frames} --output {output.html} {output.png} > {log} 2>&1"
