# Which captions belong to which frames, and what the captioner has to know.


def caption_settings(wildcards):
    """The run whose captions these are (any of them: equal ids mean equal settings)."""
    for run in EXPERIMENTS.runs(wildcards.dataset).values():
        if run.captions_id == wildcards.captions_id:
            return run
    raise WorkflowError(
        f"no table of {wildcards.dataset} uses captions {wildcards.captions_id}"
    )


def captioner_options(wildcards, resources):
    """What the caption command has to know of its model, or of the authors' file."""
    settings = caption_settings(wildcards).settings
    if settings.captions == "released":
        root = EXPERIMENTS.root(wildcards.dataset)
        return shlex.join(["--released", f"{root}/released_captions.json"])
    entry = EXPERIMENTS.captioner(settings.captioner)
    if entry.get("engine") == "server":
        return shlex.join(answer_options(settings) + server_options(entry))
    options = ["--model", entry["model"], "--dtype", entry["dtype"]]
    options += answer_options(settings)
    options += ["--batch-size", str(entry["batch_size"] or "auto")]
    options += ["--grid", entry.get("grid", "processor")]
    if sampling := entry.get("sampling"):
        options += ["--sample-seed", str(sampling["seed"])]
        options += ["--temperature", str(sampling.get("temperature", 1.0))]
        options += ["--top-p", str(sampling.get("top_p", 1.0))]
    if entry["revision"]:
        options += ["--revision", entry["revision"]]
    return shlex.join(options)


def answer_options(settings):
    """How long answers may be, and how much of them CLIP reads."""
    longest = EXPERIMENTS.longest_answer(settings)
    return ["--max-new-tokens", str(longest), "--words", str(settings.words)]


def server_options(entry):
    """The key stays in the environment; only the name of its variable is passed on."""
    options = ["--engine", "server", "--url", entry["url"], "--model", entry["model"]]
    options += ["--concurrency", str(entry.get("concurrency", 16))]
    if entry.get("api_key_env"):
        options += ["--api-key-env", entry["api_key_env"]]
    return options


def caption_gpu(wildcards):
    """1 where captions are written here, by a model that may use a GPU."""
    settings = caption_settings(wildcards).settings
    elsewhere = settings.captions == "released" or (
        EXPERIMENTS.captioner(settings.captioner).get("engine") == "server"
    )
    return 0 if elsewhere else on_gpu(wildcards)


def caption_frames(wildcards):
    run = caption_settings(wildcards)
    return f"resources/{run.dataset}/frames/{run.frames_id}/{wildcards.shard}.arrow"


def caption_shards(wildcards):
    folder = f"results/{wildcards.dataset}/captions/{wildcards.captions_id}"
    return [f"{folder}/{shard}.parquet" for shard in shards_of(wildcards.dataset)]


def captioned_frames(wildcards):
    """The whole frame store behind some captions."""
    run = caption_settings(wildcards)
    folder = f"resources/{run.dataset}/frames/{run.frames_id}"
    return [f"{folder}/{shard}.arrow" for shard in shards_of(run.dataset)]
