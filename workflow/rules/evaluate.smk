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


rule epochs:
    """Encode val and test with every checkpoint of a training, in one process."""
    input:
        config="results/{dataset}/runs/{run_id}/config.json",
        adapter="results/{dataset}/runs/{run_id}/seed{seed}/adapter.safetensors",
        annotations="resources/{dataset}/annotations.parquet",
        frames=frame_shards,
    output:
        directory("results/{dataset}/runs/{run_id}/seed{seed}/epochs"),
    log:
        "logs/{dataset}/runs/{run_id}/seed{seed}.epochs.log",
    benchmark:
        "results/{dataset}/benchmarks/epochs/{run_id}.seed{seed}.tsv"
    conda:
        "../../environment.yml"
    threads: job_threads
    resources:
        gpu=on_gpu,
        mem_mb=16000,
        runtime=480,
    params:
        folder=lambda wildcards, input: Path(input.adapter).parent,
        frames=lambda wildcards, input: Path(input.frames[0]).parent,
        splits=selection_splits,
        device=device_of,
        workers=loader_workers,
        allow=allow_missing,
    shell:
        "python -m discovla epochs --config {input.config} --run-folder {params.folder} "
        "--splits {params.splits} --annotations {input.annotations} --frames {params.frames} "
        "--seed {wildcards.seed} --device {params.device} --workers {params.workers} "
        "{params.allow} --output {output} > {log} 2>&1"


rule selection:
    """Every checkpoint's numbers on val and test, and what choosing one would gain."""
    input:
        "results/{dataset}/runs/{run_id}/seed{seed}/epochs",
    output:
        "results/{dataset}/runs/{run_id}/seed{seed}/selection.csv",
    log:
        "logs/{dataset}/runs/{run_id}/seed{seed}.selection.log",
    conda:
        "../../environment.yml"
    script:
        "../scripts/choose_checkpoint.py"


rule selected_metrics:
    """The metrics of another checkpoint than the last, chosen on val or on test itself."""
    input:
        epochs="results/{dataset}/runs/{run_id}/seed{seed}/epochs",
        selection="results/{dataset}/runs/{run_id}/seed{seed}/selection.csv",
    output:
        "results/{dataset}/runs/{run_id}/seed{seed}/metrics.{post}.{selection}.json",
    log:
        "logs/{dataset}/runs/{run_id}/seed{seed}.metrics.{post}.{selection}.log",
    conda:
        "../../environment.yml"
    params:
        post=post_parameters,
    script:
        "../scripts/compute_selected.py"
