# Where a dataset's files lie, and how its frames are taken and kept.


def source_files(wildcards):
    """The folder that a rule makes, for the world that is rendered and not brought."""
    entry = EXPERIMENTS.dataset(wildcards.dataset)
    return [entry["root"]] if entry["reader"] == "demo" else []


# Snakemake keeps no record of params whose function takes `resources`. Where files lie and how this
# machine runs decide no number, so a change of them must not make anything again.


def root_of(wildcards, resources):
    return EXPERIMENTS.root(wildcards.dataset)


def decode_timeout(wildcards, resources):
    return EXPERIMENTS.config["decode_timeout"]


def shards_of(dataset):
    n = EXPERIMENTS.dataset(dataset)["shards"]
    return [f"{i}-of-{n}" for i in range(1, n + 1)]


def frame_settings(wildcards):
    """The settings behind a frames_id, from any run that reads these frames."""
    for run in EXPERIMENTS.runs(wildcards.dataset).values():
        if run.frames_id == wildcards.frames_id:
            return run.settings
    raise WorkflowError(
        f"no table of {wildcards.dataset} uses frames {wildcards.frames_id}"
    )


def frame_storage(wildcards, resources):
    """How frames are kept on disk; the frames_id in the path holds it, so no record is needed."""
    settings = frame_settings(wildcards)
    options = ["--encoding", settings.frame_encoding]
    options += ["--quality", str(settings.frame_quality)]
    options += ["--limit-gb", str(settings.frame_limit_gb)]
    if settings.frame_short_side:
        options += ["--short-side", str(settings.frame_short_side)]
    return shlex.join(options)
