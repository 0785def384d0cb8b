# What the rules share: the experiments, the wildcards, and every input function.
import os
import re
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from discovla.errors import UserError
from discovla.experiments import Experiments, ID, POSTS, SELECTIONS
from discovla.files import read_record
from discovla.report.parts import compared, reported

# Jobs must find the Python that runs Snakemake, also when no environment is activated, and this
# repository's package, also from another working directory or in an environment of their own.
os.environ.update(
    PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()]),
    PYTHONPATH=os.pathsep.join(
        filter(None, [str(workflow.basedir), os.environ.get("PYTHONPATH")])
    ),
)

# A cluster sends SIGTERM to every process of a job. The shell waits for its command, which saves
# and ends; otherwise the job would count as ended, and what still saves would be killed.
shell.prefix("trap : TERM; set -euo pipefail; ")

try:
    EXPERIMENTS = Experiments.load(config)
except UserError as error:
    raise WorkflowError(str(error)) from None


wildcard_constraints:
    dataset="|".join(map(re.escape, EXPERIMENTS.datasets)),
    table="|".join(map(re.escape, EXPERIMENTS.tables)),
    figure="|".join(map(re.escape, EXPERIMENTS.figures)),
    row="[a-z0-9][a-z0-9_.-]*",
    run_id=ID,
    frames_id="[0-9a-f]{10}",
    captions_id="[0-9a-f]{10}",
    shard=r"\d+-of-\d+",
    seed=r"\d+",
    split="test|val|bank",
    post="|".join(POSTS),
    selection="|".join(SELECTIONS[1:]),
    method="|".join(EXPERIMENTS.methods),
    before="[a-z0-9][a-z0-9_-]*",
    after="[a-z0-9][a-z0-9_-]*",
    picture="svg|png",


# Targets


def demo_targets():
    names = [f"{name}.csv" for name in reported_names("demo")]
    return [f"results/demo/{name}" for name in [*names, "summary.md", "report.html"]]


def reported_names(dataset):
    """The tables and figures of a dataset's report page."""
    try:
        return reported(EXPERIMENTS, dataset)
    except UserError as error:
        raise WorkflowError(str(error)) from None


def demo_all_targets():
    return [
        f"results/demo/{name}.csv" for name in EXPERIMENTS.targets("demo")
    ] + demo_targets()


def paper_targets():
    return [
        f"results/{dataset}/{name}.csv"
        for dataset in EXPERIMENTS.config["data"]
        for name in EXPERIMENTS.printed(dataset)
    ]


# Data


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
        return shlex.join(server_options(entry))
    options = ["--model", entry["model"], "--dtype", entry["dtype"]]
    options += ["--max-new-tokens", str(entry["max_new_tokens"])]
    options += ["--batch-size", str(entry["batch_size"] or "auto")]
    options += ["--grid", entry.get("grid", "processor")]
    if sampling := entry.get("sampling"):
        options += ["--sample-seed", str(sampling["seed"])]
        options += ["--temperature", str(sampling.get("temperature", 1.0))]
        options += ["--top-p", str(sampling.get("top_p", 1.0))]
    if entry["revision"]:
        options += ["--revision", entry["revision"]]
    return shlex.join(options)


def server_options(entry):
    """The key stays in the environment; only the name of its variable is passed on."""
    options = ["--engine", "server", "--url", entry["url"], "--model", entry["model"]]
    options += ["--max-new-tokens", str(entry["max_new_tokens"])]
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


# Runs


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


# Tables


def metrics_of(wildcards):
    """All metrics a table or figure needs, or one of its rows."""
    name = wildcards.get("table") or wildcards.get("figure")
    try:
        if "row" in wildcards.keys():
            rows = [EXPERIMENTS.row(wildcards.dataset, name, wildcards.row)]
        else:
            rows = EXPERIMENTS.rows(wildcards.dataset, name)
    except UserError as error:
        raise WorkflowError(str(error)) from None
    return [path for row in rows for path in EXPERIMENTS.metrics_files(row)]


def compared_features(wildcards):
    """Test features of two rows of a table, and the bank where a row needs one."""
    try:
        rows = [
            EXPERIMENTS.row(wildcards.dataset, wildcards.table, name)
            for name in (wildcards.before, wildcards.after)
        ]
    except UserError as error:
        raise WorkflowError(str(error)) from None
    return [
        str(Path(path).parent / f"features.{split}.safetensors")
        for row in rows
        for path in EXPERIMENTS.metrics_files(row)
        for split in (["test", "bank"] if row.post == "qbnorm" else ["test"])
    ]


def report_parts(wildcards):
    """What the report page of a dataset is made of; it also shows whatever else is there."""
    folder = f"results/{wildcards.dataset}"
    try:
        pairs = compared(EXPERIMENTS, wildcards.dataset)
    except UserError as error:
        raise WorkflowError(str(error)) from None
    names = reported_names(wildcards.dataset)
    names += [f"compare/{table}/{before}..{after}" for table, before, after in pairs]
    return [f"{folder}/{name}.csv" for name in names]


def grid_features(wildcards):
    """Validation features of every run that a method's grid asks for."""
    try:
        rows = EXPERIMENTS.grid(wildcards.dataset, wildcards.method)
    except UserError as error:
        raise WorkflowError(str(error)) from None
    folder = f"results/{wildcards.dataset}/runs"
    return [
        f"{folder}/{row.row}/seed{seed}/features.val.safetensors"
        for row in rows
        for seed in EXPERIMENTS.seeds(wildcards.dataset)
    ]


def shown(row):
    """What a row shows besides its numbers."""
    return [
        row.row,
        row.label,
        row.recipe,
        row.protocol,
        row.implementation,
        row.selected_on,
        row.post,
        row.params_paper,
        row.paper,
        row.footnotes,
    ]


def table_labels(wildcards):
    """What a change of which makes a table or figure, and nothing else, again."""
    name = wildcards.get("table") or wildcards.get("figure")
    spec = EXPERIMENTS.tables.get(name) or EXPERIMENTS.figures[name]
    heads = [spec.get(key) for key in ("title", "metrics", "direction", "symbol")]
    return repr(
        [heads, [shown(row) for row in EXPERIMENTS.rows(wildcards.dataset, name)]]
    )


def row_labels(wildcards):
    return repr(
        shown(EXPERIMENTS.row(wildcards.dataset, wildcards.table, wildcards.row))
    )


# Machine


def on_gpu(wildcards):
    """1 where a job of this dataset may use a GPU."""
    return int(EXPERIMENTS.device(wildcards.dataset) != "cpu")


def job_threads(wildcards):
    """The demo's tiny models are fastest on one thread each."""
    return 8 if on_gpu(wildcards) else 1


def training_gpus(wildcards):
    """GPUs of one node; those of several nodes are asked for in `several_nodes`."""
    config = EXPERIMENTS.config
    single = config["nodes_per_training"] == 1
    return on_gpu(wildcards) * config["gpus_per_training"] * single


def training_threads(wildcards):
    return job_threads(wildcards) * EXPERIMENTS.config["gpus_per_training"]


def several_nodes():
    """What SLURM has to know of a training on several nodes: one task on each, which is torchrun."""
    nodes = EXPERIMENTS.config["nodes_per_training"]
    if nodes == 1:
        return {}
    return {"nodes": nodes, "tasks": nodes, "mpi": "srun", "slurm_extra": gpus_per_node}


def gpus_per_node(wildcards):
    gpus = EXPERIMENTS.config["gpus_per_training"]
    return f"--gpus-per-node={gpus}" if on_gpu(wildcards) else ""


def training_starter(wildcards, resources):
    """What runs `-m discovla train`: python, or torchrun where several processes share it."""
    nodes, gpus = (
        EXPERIMENTS.config[f"{name}_per_training"] for name in ("nodes", "gpus")
    )
    if nodes == gpus == 1:
        return "python"
    threads = job_threads(wildcards)
    torchrun = f"torchrun --nproc-per-node {gpus}"
    if nodes == 1:
        return f"OMP_NUM_THREADS={threads} {torchrun} --standalone"
    # Snakemake runs this on the first node of the job; the processes meet there.
    return (
        f"OMP_NUM_THREADS={threads} srun --nodes {nodes} --ntasks-per-node 1 "
        f"--cpus-per-task {threads * gpus} {torchrun} --nnodes {nodes} --rdzv-backend c10d "
        "--rdzv-endpoint $(hostname):$((20000 + SLURM_JOB_ID % 20000)) "
        "--rdzv-id $SLURM_JOB_ID"
    )


def device_of(wildcards, resources):
    return EXPERIMENTS.device(wildcards.dataset)


def loader_workers(wildcards, resources):
    return EXPERIMENTS.config["workers"] if on_gpu(wildcards) else 0


def training_memory(wildcards, resources):
    """How training saves memory: options that change no result."""
    size = EXPERIMENTS.config["micro_batch"]
    pieces = f"--micro-batch {size}" if size else ""
    return f"{pieces} --recompute" if EXPERIMENTS.config["recompute"] else pieces


def strict(wildcards, resources):
    return "" if EXPERIMENTS.config["allow_missing"] else "--strict"


def allow_missing(wildcards, resources):
    return "--allow-missing" if EXPERIMENTS.config["allow_missing"] else ""


def explain_failures(log_files):
    """Print the last error of every failed job, so that it stands last on the screen."""
    paths = [log_files] if isinstance(log_files, str) else log_files
    text = "".join(
        Path(path).read_text(encoding="utf-8", errors="replace") for path in paths
    )
    # Jobs that failed and later succeeded have nothing to explain.
    finished = set(re.findall(r"^Finished jobid: (\d+) ", text, re.MULTILINE))
    errors = re.findall(r"^Error in [a-z]+ .*\n((?: .*\n)+)", text, re.MULTILINE)
    failed = re.findall(
        r"jobid: (\d+)\n(?:(?!.*jobid: ).*\n)*? +log: ([^\s,]+)", "\n".join(errors)
    )
    for path in dict.fromkeys(path for job, path in failed if job not in finished):
        if Path(path).exists():
            text = Path(path).read_text(encoding="utf-8", errors="replace").strip()
            last = (
                text.rpartition("error: ")[2]
                if "error: " in text
                else text.split("\n")[-1]
            )
            print(f"\n{last}\n(log: {path})", file=sys.stderr)
