# From the user's files to annotations, clips and frames in one form for all datasets.


# The check keeps no record of settings: where a job that others read as `ancient` is made again,
# Snakemake 9 leaves out all that follows, also a target that does not exist yet (its issue 4166).
rule check:
    """Say what is there and what is missing before anything runs for hours."""
    input:
        source_files,
    output:
        "results/{dataset}/check.json",
    log:
        "logs/{dataset}/check.log",
    retries: 0
    conda:
        "../../environment.yml"
    script:
        "../scripts/check_data.py"


rule annotations:
    """Turn a dataset's own annotation files into the canonical table."""
    input:
        ancient("results/{dataset}/check.json"),
        source_files,
    output:
        "resources/{dataset}/annotations.parquet",
    log:
        "logs/{dataset}/annotations.log",
    conda:
        "../../environment.yml"
    params:
        root=root_of,
        rules=lambda wildcards: EXPERIMENTS.dataset(wildcards.dataset)["rules"],
    shell:
        "python -m discovla annotations --dataset {wildcards.dataset} --root {params.root:q} "
        "--output {output} > {log} 2>&1"


rule clips:
    """Find the video file of every clip and read its header."""
    input:
        annotations="resources/{dataset}/annotations.parquet",
        source=source_files,
    output:
        "resources/{dataset}/clips.parquet",
    log:
        "logs/{dataset}/clips.log",
    conda:
        "../../environment.yml"
    params:
        root=root_of,
        strict=strict,
        timeout=decode_timeout,
    shell:
        "python -m discovla clips --annotations {input.annotations} --root {params.root:q} "
        "{params.strict} --timeout {params.timeout} --output {output} > {log} 2>&1"


rule sample_frames:
    """Decode every clip of one shard once; training and captioning read only this."""
    input:
        annotations="resources/{dataset}/annotations.parquet",
        clips="resources/{dataset}/clips.parquet",
    output:
        "resources/{dataset}/frames/{frames_id}/{shard}.arrow",
    log:
        "logs/{dataset}/frames/{frames_id}/{shard}.log",
    benchmark:
        "results/{dataset}/benchmarks/frames/{frames_id}.{shard}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=240,
    params:
        root=root_of,
        frames=lambda wildcards: frame_settings(wildcards).frames,
        sampling=lambda wildcards: frame_settings(wildcards).sampling,
        fps=lambda wildcards: frame_settings(wildcards).sampling_fps,
        storage=frame_storage,
        reader=config["reader"],
        timeout=decode_timeout,
    shell:
        "python -m discovla sample-frames --annotations {input.annotations} --clips {input.clips} "
        "--root {params.root:q} --shard {wildcards.shard} --frames-id {wildcards.frames_id} "
        "--frames {params.frames} --sampling {params.sampling} --fps {params.fps} "
        "{params.storage} "
        "--reader {params.reader} --timeout {params.timeout} "
        "--output {output} > {log} 2>&1"
