# The embedded demo world: what stands in for the user's files, and what its users read first.


rule demo_world:
    """Render the videos and captions of the demo world."""
    output:
        directory("resources/demo/world"),
    log:
        "logs/demo/world.log",
    benchmark:
        "results/demo/benchmarks/world.tsv"
    conda:
        "../../environment.yml"
    shell:
        "python -m discovla demo-world --output {output} > {log} 2>&1"


rule demo_pretrain:
    """Train the tiny CLIP and the tiny LLaVA-NeXT anew (20 to 35 CPU minutes; the shipped ones stay)."""
    output:
        directory("results/demo/pretrain"),
    log:
        "logs/demo/pretrain.log",
    benchmark:
        "results/demo/benchmarks/pretrain.tsv"
    conda:
        "../../environment.yml"
    shell:
        "python -m discovla demo-pretrain --output {output} > {log} 2>&1"


rule summary:
    """The demo's tables, the time of each stage, and where everything is."""
    input:
        tables=[
            "results/demo/table1.csv",
            "results/demo/table5.csv",
            "results/demo/table9.csv",
        ],
        figure="results/demo/figure7.csv",
    output:
        report(
            "results/demo/summary.md",
            caption="../report/summary.rst",
            category="Summary",
        ),
    log:
        "logs/demo/summary.log",
    conda:
        "../../environment.yml"
    script:
        "../scripts/write_summary.py"
