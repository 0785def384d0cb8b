# Features are the only thing evaluation takes from the model; the rest is CPU work on them.


rule features:
    """Encode one split (or the bank of training captions) with a trained run."""
    input:
        config="results/{dataset}/runs/{run_id}/config.json",
        adapter=adapter,
        annotations="resources/{dataset}/annotations.parquet",
        frames=feature_frames,
    output:
        "results/{dataset}/runs/{run_id}/seed{seed}/features.{split}.safetensors",
    log:
        "logs/{dataset}/runs/{run_id}/seed{seed}.features.{split}.log",
    benchmark:
        "results/{dataset}/benchmarks/features/{run_id}.seed{seed}.{split}.tsv"
    conda:
        "../../environment.yml"
    threads: job_threads
    resources:
        gpu=on_gpu,
        mem_mb=16000,
        runtime=120,
    params:
        adapter=lambda wildcards, input: option("adapter", input.adapter),
        frames=lambda wildcards, input: option(
            "frames", [str(Path(path).parent) for path in input.frames]
        ),
        device=device_of,
        workers=loader_workers,
        allow=allow_missing,
    shell:
        "python -m discovla features --config {input.config} {params.adapter} "
        "--split {wildcards.split} --annotations {input.annotations} {params.frames} "
        "--seed {wildcards.seed} --device {params.device} "
        "--workers {params.workers} {params.allow} "
        "--output {output} > {log} 2>&1"


rule metrics:
    """Rank in both directions, plain or after QB-Norm or DSL."""
    input:
        unpack(features_of),
    output:
        "results/{dataset}/runs/{run_id}/seed{seed}/metrics.{post}.json",
    log:
        "logs/{dataset}/runs/{run_id}/seed{seed}.metrics.{post}.log",
    conda:
        "../../environment.yml"
    params:
        post=post_parameters,
    script:
        "../scripts/compute_metrics.py"
