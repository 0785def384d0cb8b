# What one run reads, and what its evaluation reads.


def run_config(wildcards):
    """Resolved settings of a run; from disk if its row has been deleted meanwhile."""
    run = EXPERIMENTS.runs(wildcards.dataset).get(wildcards.run_id)
    if run is not None:
        return run.config()
    path = f"results/{wildcards.dataset}/runs/{wildcards.run_id}/config.json"
    try:
        return read_record(path)
    except UserError:
        raise WorkflowError(
            f"no table of {wildcards.dataset} has a run {wildcards.run_id}; "
            "'discovla runs --dataset NAME' lists them"
        ) from None


def frame_shards(wildcards):
    folder = (
        f"resources/{wildcards.dataset}/frames/{run_config(wildcards)['frames_id']}"
    )
    return [f"{folder}/{shard}.arrow" for shard in shards_of(wildcards.dataset)]


def caption_table(wildcards):
    captions_id = run_config(wildcards)["captions_id"]
    return (
        [f"results/{wildcards.dataset}/captions/{captions_id}.parquet"]
        if captions_id
        else []
    )


def adapter(wildcards):
    """The trained tensors, or nothing for zero-shot evaluation."""
    folder = f"results/{wildcards.dataset}/runs/{wildcards.run_id}/seed{wildcards.seed}"
    return [f"{folder}/adapter.safetensors"] if run_config(wildcards)["trains"] else []


def feature_frames(wildcards):
    return [] if wildcards.split == "bank" else frame_shards(wildcards)


def option(name, files):
    """`--name first-file`, or nothing where there is no file."""
    return f"--{name} {files[0]}" if files else ""


def selection_splits(wildcards):
    """The splits on which a checkpoint may be chosen; val only where there is one."""
    return "val test" if EXPERIMENTS.has_val(wildcards.dataset) else "test"


def post_parameters(wildcards):
    return EXPERIMENTS.defaults["post"].get(wildcards.post, {})


def features_of(wildcards):
    folder = f"results/{wildcards.dataset}/runs/{wildcards.run_id}/seed{wildcards.seed}"
    files = {"test": f"{folder}/features.test.safetensors"}
    if wildcards.post == "qbnorm":
        files["bank"] = f"{folder}/features.bank.safetensors"
    return files
