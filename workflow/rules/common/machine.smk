# What a job may use of the machine or cluster. Nothing here decides a number.


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
