"""What befalls jobs on a cluster: one workflow with a rule for each, on a real SLURM.

The workflow starts once, for all tests of this file; while its jobs wait for their time-outs, the
tests of interruptions have the same SLURM.
"""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.conftest import ROOT, Workflow, until
from tests.slurm.local import Slurm

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

SNAKEFILE = ROOT / "tests" / "slurm" / "Snakefile"
# In place of the profile's: a minute is SLURM's shortest time, and two Snakemakes need 200 MB.
REQUESTS = ["out_of_time:runtime=attempt", "out_of_memory:mem_mb=500*attempt*attempt"]
REQUESTS += ["caption_shard:in_turn=1"]


class Fates(Workflow):
    """The workflow of the tests."""

    def starts(self, fate: str) -> list[str]:
        """The SLURM jobs in which a rule's work was begun, in order."""
        path = self.folder / "out" / f"{fate}.starts"
        return path.read_text().split() if path.exists() else []

    def result(self, fate: str) -> dict:
        return json.loads((self.folder / "out" / f"{fate}.txt").read_text())

    def log(self, fate: str) -> str:
        return (self.folder / "logs" / f"{fate}.log").read_text()


@pytest.fixture(scope="module")
def running(
    slurm: Slurm, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Fates, subprocess.Popen[bytes]]]:
    """The workflow with all fates, started; it needs the tests to cancel and to preempt."""
    fates = Fates(slurm, tmp_path_factory.mktemp("fates"), SNAKEFILE)
    process = fates.start("all", "out/fails.txt", "--retries", "1", "--set-resources", *REQUESTS)
    yield fates, process
    if process.poll() is None:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def ended(running: tuple[Fates, subprocess.Popen[bytes]]) -> Fates:
    """The same after its end."""
    fates, process = running
    assert fates.wait(process) == 1  # one rule fails whatever is done
    return fates


def test_cancelled_and_preempted_in_the_middle(
    running: tuple[Fates, subprocess.Popen[bytes]], slurm: Slurm
) -> None:
    fates, process = running
    until(lambda: fates.starts("cancelled"), process)
    slurm.ask("scancel", fates.starts("cancelled")[0])
    until(lambda: fates.starts("preempted"), process)
    urgent = ["sbatch", "--parsable", "-p", "urgent", "--gres=token:1", "--output=/dev/null"]
    urgent = slurm.ask(*urgent, "--wrap=sleep 1")
    until(lambda: slurm.show(urgent)["JobState"] == "COMPLETED", process)
    assert len(fates.starts("preempted")) == 1  # the other job has had its turn first


def test_ctrl_c_cancels_the_jobs_and_the_same_command_goes_on(
    slurm: Slurm, running: object, tmp_path: Path
) -> None:
    workflow = Fates(slurm, tmp_path / "interrupted", SNAKEFILE)
    process = workflow.start("out/cancelled.txt")
    until(lambda: workflow.starts("cancelled"), process)
    process.send_signal(signal.SIGINT)
    assert workflow.wait(process) != 0
    (first,) = workflow.starts("cancelled")
    until(lambda: slurm.show(first)["JobState"] == "CANCELLED")
    assert not (workflow.folder / "out" / "cancelled.txt").exists()
    assert workflow.run("out/cancelled.txt") == 0, workflow.said()[-4000:]
    assert len(workflow.starts("cancelled")) == 2
    assert workflow.result("cancelled")["saved_at"] > 0  # SIGTERM came before SIGKILL, and was used


def test_gpus_are_those_that_the_rule_asks_for(ended: Fates, slurm: Slurm) -> None:
    (job,) = slurm.jobs("rule_gpu")
    assert slurm.show(job["id"])["TresPerJob"] == "gres:gpu:2"
    assert ended.result("gpu")["visible"] == "0,1"


def test_a_group_of_caption_shards_takes_turns_on_one_gpu(ended: Fates, slurm: Slurm) -> None:
    first, second = sorted(
        (ended.result(f"caption_shard/{i}") for i in (1, 2)), key=lambda shard: shard["begin"]
    )
    assert first["job"] == second["job"]
    assert slurm.show(first["job"])["TresPerJob"] == "gres:gpu:1"
    assert first["visible"] == second["visible"] == "0"
    assert first["end"] <= second["begin"]


def test_a_failing_rule_is_reported_with_its_reason_last(ended: Fates) -> None:
    assert len(ended.starts("fails")) == 2  # a retry, for Snakemake cannot know
    said = ended.said()
    assert "Error in rule fails" in said
    last = said[said.rindex("Complete log") :] if "Complete log" in said else said
    assert "the reason of the failure, in plain words\n(log: logs/fails.log)" in said, last[-2000:]
    (slurm_log,) = ((ended.folder / "logs" / "slurm").glob("rule_fails/*.log"),)
    assert any("fails" in path.read_text() for path in slurm_log)


def test_a_cancelled_job_is_noticed_and_sent_again(ended: Fates, slurm: Slurm) -> None:
    first, second = ended.starts("cancelled")
    assert first != second
    assert slurm.show(first)["JobState"] == "CANCELLED"
    assert f"SLURM-job '{first}' failed, SLURM status is: 'CANCELLED'" in ended.said()
    assert ended.result("cancelled")["saved_at"] > 0


def test_a_job_out_of_memory_gets_more(ended: Fates, slurm: Slurm) -> None:
    first, second = ended.starts("out_of_memory")
    memory = {job["id"]: job["memory"] for job in slurm.jobs("rule_out_of_memory")}
    assert memory == {first: "500M", second: "2000M"}
    assert "exceeded memory limit" in slurm_log(ended, "out_of_memory", first)
    assert ended.result("out_of_memory")["bytes"] == 600 << 20


def test_a_job_out_of_time_gets_more_and_goes_on(ended: Fates, slurm: Slurm) -> None:
    first, second = ended.starts("out_of_time")
    limits = {job["id"]: (job["limit"], job["state"]) for job in slurm.jobs("rule_out_of_time")}
    assert limits == {first: ("1:00", "TIMEOUT"), second: ("2:00", "COMPLETED")}
    assert ended.result("out_of_time")["saved_at"] > 0


def test_a_preempted_job_saves_and_is_put_back_by_slurm_itself(ended: Fates, slurm: Slurm) -> None:
    first, second = ended.starts("preempted")
    assert first == second  # the same job: no retry was used up
    assert slurm.show(first)["Restarts"] == "1"
    assert slurm.show(first)["JobState"] == "COMPLETED"
    assert ended.result("preempted")["saved_at"] > 0


def slurm_log(fates: Fates, rule: str, job: str) -> str:
    return (fates.folder / "logs" / "slurm" / f"rule_{rule}" / f"{job}.log").read_text()


def test_nothing_runs_after_the_end(ended: Fates, slurm: Slurm) -> None:
    until(slurm.idle)
    commands = list(Path("/proc").glob("[0-9]*/cmdline"))
    ours = str(ended.folder).encode()
    assert not [path for path in commands if path.exists() and ours in path.read_bytes()]
