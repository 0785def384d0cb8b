"""The jobs behind each real table, in docs/cluster.md: `python -m tests.slurm.plan` renews them.

Each row is a dry run with profiles/slurm in a folder where nothing is done yet (some seconds each).
"""

from __future__ import annotations

import math
import re
import tempfile
from pathlib import Path

import yaml

from tests.workflow.run import ROOT, planned, snakemake, workspace

PAGE = ROOT / "docs" / "cluster.md"
PROFILE = ROOT / "profiles" / "slurm"
TARGETS = [
    *(f"msrvtt/table{number}" for number in (1, 5, 6, 7, 8, 9)),
    *("lsmdc/table2", "activitynet/table3", "activitynet/table9", "didemo/table4"),
    *(f"msrvtt/figure{number}" for number in (6, 7, 8, 9)),
]
COUNTED = ("sample_frames", "caption_shard", "train", "features", "metrics")
HERE = ("check", "annotations", "run_config", "row", "table", "figure", "all")
"""Rules that run beside Snakemake and not as SLURM jobs."""


def dry_run(folder: Path, target: str) -> str:
    """What Snakemake would do for a target on a cluster."""
    found = snakemake(folder, target, "-n", "--workflow-profile", str(PROFILE), cores=8)
    assert found.returncode == 0, found.stdout[-2000:]
    return found.stdout


def slurm_jobs(jobs: dict[str, int]) -> int:
    """How many jobs SLURM sees: shards are grouped, small rules run beside Snakemake."""
    profile = yaml.safe_load((PROFILE / "config.yaml").read_text(encoding="utf-8"))
    per_job = {
        rule: profile["group-components"][group] for rule, group in profile["groups"].items()
    }
    return sum(
        math.ceil(count / per_job.get(rule, 1)) for rule, count in jobs.items() if rule not in HERE
    )


def row(name: str, output: str) -> str:
    """A target's line of the table."""
    jobs = planned(output)
    counts = [f"{jobs.get(rule, 0):,}" for rule in COUNTED]
    return f"| `results/{name}.csv` | {' | '.join(counts)} | {slurm_jobs(jobs):,} |"


def requests(output: str) -> list[str]:
    """A line for each rule that becomes a SLURM job: what its first attempt asks for."""
    found: dict[str, str] = {}
    for rule, body in re.findall(r"^ *rule (\w+):\n((?: .*\n)+)", output, flags=re.MULTILINE):
        asked = dict(re.findall(r"(\w+)=(\d+)", re.search(r" resources: .*", body)[0]))
        threads = re.search(r" threads: (\d+)", body)
        cells = [threads[1] if threads else "1", asked.get("gpu", "0")]
        cells += [f"{int(asked['mem_mb']) / 1000:g} GB", f"{int(asked['runtime']) / 60:g} h"]
        found.setdefault(rule, f"| {rule} | {' | '.join(cells)} |")
    return [found[rule] for rule in sorted(found) if rule not in HERE]


def section(lines: list[str], title: str) -> str:
    """A table as it stands in the page."""
    ruler = "|".join("---" for _ in title.strip("|").split("|"))
    return "\n".join([title, f"|{ruler}|", *lines])


TARGET_TITLE = (
    "| target | frame shards | caption shards | trainings | features | metrics | SLURM jobs |"
)
REQUEST_TITLE = "| rule | cores | GPUs | memory | time |"


def renew() -> None:
    """Write both tables into the page."""
    with tempfile.TemporaryDirectory() as name:
        folder = workspace(Path(name) / "plan")
        outputs = {target: dry_run(folder, f"results/{target}.csv") for target in TARGETS}
        whole = dry_run(folder, "all")
    lines = [row(target, output) for target, output in outputs.items()]
    lines.append(
        row("all", whole).replace("`results/all.csv`", "`all`: everything, shared work once")
    )
    text = PAGE.read_text(encoding="utf-8")
    for title, rows in ((TARGET_TITLE, lines), (REQUEST_TITLE, requests(whole))):
        old = re.search(re.escape(title) + r"\n(?:\|.*\n)+", text)
        assert old, f"{PAGE} has no table {title}"
        text = text.replace(old[0], section(rows, title) + "\n")
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    renew()
