# Pseudo captions of the training frames (§3.4), made shard by shard.


rule caption_shard:
    """Ask LLaVA-NeXT about every frame of one shard, guided by each video caption or not."""
    input:
        frames=caption_frames,
        annotations="resources/{dataset}/annotations.parquet",
    output:
        "results/{dataset}/captions/{captions_id}/{shard}.parquet",
    log:
        "logs/{dataset}/captions/{captions_id}/{shard}.log",
    benchmark:
        "results/{dataset}/benchmarks/captions/{captions_id}.{shard}.tsv"
    conda:
        "../../environment.yml"
    threads: job_threads
    resources:
        gpu=caption_gpu,
        mem_mb=32000,
        runtime=1440,
    params:
        kind=lambda wildcards: caption_settings(wildcards).settings.captions,
        captioner=captioner_options,
        device=device_of,
    shell:
        "python -m discovla caption --frames {input.frames} --annotations {input.annotations} "
        "--captions-id {wildcards.captions_id} --kind {params.kind} {params.captioner} "
        "--device {params.device} --output {output} > {log} 2>&1"


rule merge_captions:
    """Join the shards; fails if a single (caption, frame) pair is missing."""
    input:
        shards=caption_shards,
        annotations="resources/{dataset}/annotations.parquet",
    output:
        "results/{dataset}/captions/{captions_id}.parquet",
    log:
        "logs/{dataset}/captions/{captions_id}/merge.log",
    conda:
        "../../environment.yml"
    shell:
        "python -m discovla merge-captions {input.shards} "
        "--annotations {input.annotations} --captions-id {wildcards.captions_id} "
        "--output {output} > {log} 2>&1"


rule show_captions:
    """Frames of some clips beside their captions; guided and unguided ones where both are there."""
    input:
        captions="results/{dataset}/captions/{captions_id}.parquet",
        annotations="resources/{dataset}/annotations.parquet",
        frames=captioned_frames,
    output:
        report(
            "results/{dataset}/captions/{captions_id}.{picture}",
            caption="../report/captions.rst",
            category="Captions",
            labels={"dataset": "{dataset}", "captions": "{captions_id}"},
        ),
    log:
        "logs/{dataset}/captions/{captions_id}/show.{picture}.log",
    conda:
        "../../environment.yml"
    params:
        frames=lambda wildcards, input: Path(input.frames[0]).parent,
    shell:
        "python -m discovla show-captions {input.captions} --annotations {input.annotations} "
        "--frames {params.frames} --output {output} > {log} 2>&1"


rule show_similarity:
    """Similarity of frames and pseudo captions in the features of one run."""
    input:
        config="results/{dataset}/runs/{run_id}/config.json",
        adapter=adapter,
        annotations="resources/{dataset}/annotations.parquet",
        frames=frame_shards,
        captions=caption_table,
    output:
        report(
            "results/{dataset}/runs/{run_id}/seed{seed}/similarity.{picture}",
            caption="../report/similarity.rst",
            category="Captions",
            labels={"dataset": "{dataset}", "run": "{run_id}, seed {seed}"},
        ),
    log:
        "logs/{dataset}/runs/{run_id}/seed{seed}.similarity.{picture}.log",
    conda:
        "../../environment.yml"
    threads: job_threads
    params:
        adapter=lambda wildcards, input: option("adapter", input.adapter),
        frames=lambda wildcards, input: Path(input.frames[0]).parent,
    shell:
        "python -m discovla show-similarity {input.captions} --config {input.config} "
        "{params.adapter} --annotations {input.annotations} --frames {params.frames} "
        "--device cpu --output {output} > {log} 2>&1"
