"""The SLURM of a test file, and Snakemake on it."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.slurm.local import Slurm, absent, started
from tests.workflow.run import ROOT, SNAKEMAKE, workspace

PROFILE = ROOT / "profiles" / "slurm"
PATIENCE = 900.0
"""Seconds that one workflow may take; a busy machine needs ten times what a quiet one does."""


@pytest.fixture(scope="module")
def slurm(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Slurm]:
    if why := absent():
        pytest.skip(why)
    with started(tmp_path_factory.mktemp("slurm"), nodes=getattr(request, "param", 1)) as running:
        yield running


class Workflow:
    """Snakemake with the project's profile, in a folder of its own."""

    def __init__(self, slurm: Slurm, folder: Path, snakefile: Path = ROOT / "Snakefile") -> None:
        self.slurm, self.folder, self.snakefile = slurm, workspace(folder), snakefile
        self.output = folder / "snakemake.out"

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start it; what it prints is added to `output`."""
        command = [str(SNAKEMAKE), *arguments, "--snakefile", str(self.snakefile)]
        command += ["--directory", str(self.folder), "--workflow-profile", str(PROFILE)]
        # Shorter waits than on a cluster: jobs take seconds, and the disk is one.
        command += ["--slurm-init-seconds-before-status-checks", "3", "--latency-wait", "5"]
        with self.output.open("ab") as output:
            return subprocess.Popen(
                command,
                env=self.slurm.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                # A test runner in the background leaves SIGINT ignored: children would inherit it.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )

    def run(self, *arguments: str) -> int:
        """Run it to its end."""
        return self.wait(self.start(*arguments))

    def wait(self, process: subprocess.Popen[bytes]) -> int:
        """Its exit code; it is killed and the test fails when it takes too long."""
        try:
            return process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            queue = self.slurm.ask("squeue", "--states=all", "-o", "%i %T %k %r")
            pytest.fail(f"not done in {PATIENCE} s\n{queue}\n{self.said()[-4000:]}")

    def said(self) -> str:
        """All that Snakemake has printed."""
        return self.output.read_text(errors="replace")


def until(what: Callable[[], object], process: subprocess.Popen[bytes] | None = None) -> None:
    """Wait for something to become true, while `process` runs."""
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        assert process is None or process.poll() is None, "Snakemake ended before it happened"
        time.sleep(0.2)
