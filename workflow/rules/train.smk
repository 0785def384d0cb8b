# One training per run and seed; rows of all tables that share a run share its training.


rule run_config:
    """Write the resolved settings of one run: all that training has to know."""
    input:
        ancient("results/{dataset}/check.json"),
    output:
        "results/{dataset}/runs/{run_id}/config.json",
    log:
        "logs/{dataset}/runs/{run_id}/config.log",
    conda:
        "../../environment.yml"
    params:
        config=run_config,
    script:
        "../scripts/write_run_config.py"


rule train:
    """Train what one method adds to CLIP; a killed training goes on where it was."""
    input:
        config="results/{dataset}/runs/{run_id}/config.json",
        annotations="resources/{dataset}/annotations.parquet",
        frames=frame_shards,
        captions=caption_table,
    output:
        ensure(
            "results/{dataset}/runs/{run_id}/seed{seed}/adapter.safetensors",
            non_empty=True,
        ),
    log:
        "logs/{dataset}/runs/{run_id}/seed{seed}.train.log",
    benchmark:
        "results/{dataset}/benchmarks/train/{run_id}.seed{seed}.tsv"
    conda:
        "../../environment.yml"
    threads: training_threads
    resources:
        **several_nodes(),
        gpu=training_gpus,
        mem_mb=32000,
        runtime=1440,
    params:
        starter=training_starter,
        frames=lambda wildcards, input: Path(input.frames[0]).parent,
        captions=lambda wildcards, input: option("captions", input.captions),
        folder=lambda wildcards, output: Path(output[0]).parent,
        device=device_of,
        workers=loader_workers,
        memory=training_memory,
        allow=allow_missing,
    shell:
        "{params.starter} -m discovla train --config {input.config} --annotations {input.annotations} "
        "--frames {params.frames} {params.captions} --seed {wildcards.seed} "
        "--device {params.device} --workers {params.workers} {params.memory} {params.allow} "
        "--output {params.folder} > {log} 2>&1"
