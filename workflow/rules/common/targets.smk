# What the aggregate targets ask for.


def demo_targets(wildcards):
    names = [f"{name}.csv" for name in reported_names("demo")]
    return [f"results/demo/{name}" for name in [*names, "summary.md", "report.html"]]


def reported_names(dataset):
    """The tables and figures of a dataset's report page."""
    try:
        return reported(EXPERIMENTS, dataset)
    except UserError as error:
        raise WorkflowError(str(error)) from None


def demo_all_targets(wildcards):
    return [
        f"results/demo/{name}.csv" for name in EXPERIMENTS.targets("demo")
    ] + demo_targets(wildcards)


def paper_targets(wildcards):
    return [
        f"results/{dataset}/{name}.csv"
        for dataset in EXPERIMENTS.config["data"]
        for name in EXPERIMENTS.printed(dataset)
    ]


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
            print(f"\n{last_error(Path(path))}\n(log: {path})", file=sys.stderr)


def last_error(log):
    """What a log says of a failure; where it says nothing, how it ends.

    A job that was killed says nothing, nor does one whose log found no room on a full disk.
    """
    text = log.read_text(encoding="utf-8", errors="replace").strip()
    if "error: " in text:
        return text.rpartition("error: ")[2]
    end = re.split(r"[\r\n]+", text)[-1]
    if end:
        return f"Its log ends with: {end}"
    free = shutil.disk_usage(log.parent).free
    if free < 1_000_000:
        return (
            f"No space left on device: {log.parent} has {free:,} bytes, and its log is "
            "empty. Free some space there and run again."
        )
    return "Its log is empty."
