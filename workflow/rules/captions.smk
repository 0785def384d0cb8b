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
        gpu=on_gpu,
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
