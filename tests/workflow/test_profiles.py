"""The profiles: what they must share, and that requests grow."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.slurm import plan
from tests.workflow.run import ROOT, edit, snakemake, workspace

DEFAULT = yaml.safe_load((ROOT / "profiles" / "default" / "profile.yaml").read_text())
SLURM = yaml.safe_load((ROOT / "profiles" / "slurm" / "config.yaml").read_text())
GPUS_OF_ONE = {"gpus_per_training": 1, "nodes_per_training": 1}
REAL = "results/msrvtt/table5/b1.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workspace(tmp_path_factory.mktemp("profile"))


def rule(output: str, name: str) -> str:
    """The first job of a rule in a dry run."""
    found = re.search(rf"^ *rule {name}:\n(?: .*\n)+(?:Shell command: .*\n)?", output, re.MULTILINE)
    assert found, output[-2000:]
    return found[0]


def dry_run(folder: Path, **settings: object) -> str:
    edit(folder / "config" / "config.yaml", lambda content: content.update(settings))
    found = snakemake(folder, REAL, "-n", "-p", "--workflow-profile", str(plan.PROFILE), cores=64)
    assert found.returncode == 0, found.stdout[-2000:]
    return found.stdout


def test_what_makes_jobs_run_again_is_the_same_everywhere() -> None:
    shared = ("rerun-triggers", "ignore-incomplete")
    assert {key: SLURM[key] for key in shared} == {key: DEFAULT[key] for key in shared}


def test_every_request_grows_with_the_attempt_and_has_an_end() -> None:
    requests = [SLURM["default-resources"], *SLURM["set-resources"].values()]
    for request in requests:
        for name in ("mem_mb", "runtime"):
            values = [eval(request[name], {"attempt": n, "min": min}) for n in range(1, 10)]
            assert values[1] == 2 * values[0]
            assert values[-1] == values[-2]


def test_every_rule_with_a_request_of_its_own_has_one_in_the_profile() -> None:
    rules = "".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    bodies = re.findall(r"^rule (\w+):\n((?:[ \n].*\n|\n)+)", rules, flags=re.MULTILINE)
    asking = {name for name, body in bodies if " mem_mb=" in body}
    assert asking == set(SLURM["set-resources"])
    assert asking == {"sample_frames"} | {name for name, body in bodies if " gpu=" in body}


@pytest.mark.parametrize("path", ["default/profile.yaml", "slurm/config.yaml"])
def test_every_key_of_a_profile_is_explained(path: str) -> None:
    text = (ROOT / "profiles" / path).read_text()
    explained = set()
    for paragraph in text.split("\n\n"):
        keys = re.findall(r"^([a-z-]+):", paragraph, re.MULTILINE)
        assert not keys or paragraph.startswith("#"), keys
        explained |= set(keys)
    assert explained == set(yaml.safe_load(text))


def test_gpus_can_be_asked_for_as_generic_resources(folder: Path) -> None:
    rules = ("caption_shard", "train", "features", "epochs")
    assert set(rules) == {r for r in SLURM["set-resources"] if r != "sample_frames"}
    edit(folder / "config" / "config.yaml", lambda c: c.update(GPUS_OF_ONE))
    requests = [f"{name}:{request}" for name in rules for request in ("gpu=0", "gres=gpu:1")]
    arguments = ["-n", "--workflow-profile", str(plan.PROFILE), "--set-resources", *requests]
    found = snakemake(folder, REAL, *arguments, cores=64)
    assert found.returncode == 0, found.stdout[-2000:]
    train = rule(found.stdout, "train")
    assert " gres=gpu:1" in train
    assert " gpu=0" in train
    assert " threads: 8\n" in train


def test_no_gpu_limit_cuts_what_a_training_asks_for() -> None:
    assert "gpu" not in SLURM["resources"]


def test_one_process_is_plain_python_and_several_are_torchrun(folder: Path) -> None:
    train = rule(dry_run(folder), "train")
    assert "Shell command: python -m discovla train --config " in train
    assert " gpu=1" in train
    assert " threads: 8\n" in train
    train = rule(dry_run(folder, gpus_per_training=4), "train")
    assert "OMP_NUM_THREADS=8 torchrun --nproc-per-node 4 --standalone -m discovla train" in train
    assert " gpu=4" in train
    assert " threads: 32\n" in train
    train = rule(dry_run(folder, gpus_per_training=4, nodes_per_training=2), "train")
    assert "srun --nodes 2 --ntasks-per-node 1 --cpus-per-task 32 torchrun" in train
    for request in (
        " nodes=2",
        " tasks=2",
        " mpi=srun",
        " slurm_extra=--gpus-per-node=4",
        " gpu=0",
    ):
        assert request in train


@pytest.mark.parametrize("target", ["msrvtt/table1", "lsmdc/table2"])
def test_the_jobs_in_the_manual_are_those_of_a_dry_run(tmp_path: Path, target: str) -> None:
    """`python -m tests.slurm.plan` renews docs/cluster.md."""
    output = plan.dry_run(workspace(tmp_path / "plan"), f"results/{target}.csv")
    page = plan.PAGE.read_text()
    assert plan.row(target, output) + "\n" in page
    for line in plan.requests(output):
        assert line + "\n" in page
