"""A SLURM of one node that lives as long as the tests: real daemons, nothing outside its folder.

The node claims more than the machine has (`config_overrides`), so that requests for GPUs and memory
can be tried anywhere: its two GPUs are /dev/null and /dev/zero. There is no accounting database and
nothing is written below /etc. The daemons are children of this process and are ended by their ids.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "squeue", "sinfo", "scancel", "scontrol")
GPUS = ("/dev/null", "/dev/zero")
CPUS, MEMORY_MB = 16, 256000
GRACE_SECONDS = 20
"""Between the SIGTERM and the SIGKILL of a job that is preempted."""
SYSTEM_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"

CONFIG = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SlurmdParameters=config_overrides
ReturnToService=2
MinJobAge=3600
KillWait={grace}
JobRequeue=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,requeue_delay=0
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
GresTypes=gpu
NodeName=one NodeHostname={host} NodeAddr=127.0.0.1 {node} State=UNKNOWN
PartitionName=work Nodes=one Default=YES GraceTime={grace} PriorityTier=1 State=UP
PartitionName=urgent Nodes=one PriorityTier=9 State=UP
"""


def absent() -> str:
    """Why no SLURM can be started here; empty if one can."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=SYSTEM_PATH) is None]
    if missing:
        return f"no SLURM programs: {', '.join(missing)} not found"
    if os.geteuid() != 0:
        return "no SLURM programs for a user who is not root: slurmd starts jobs as other users"
    try:
        socket.gethostbyname(_host())
    except OSError:
        return f"no SLURM programs that listen on loopback alone: {_host()} does not resolve"
    return ""


@dataclass(frozen=True)
class Slurm:
    """A running one."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a login shell of this cluster would have, and nothing else."""
        return {
            "PATH": f"{self.folder / 'bin'}:{SYSTEM_PATH}",
            "HOME": os.environ.get("HOME", "/"),
            "LC_ALL": "C.UTF-8",
            "SLURM_CONF": str(self.folder / "slurm.conf"),
        }

    def ask(self, *command: str, timeout: float = 30) -> str:
        """What one of SLURM's programs prints."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=timeout
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def jobs(self, comment: str = "") -> list[dict[str, str]]:
        """All jobs whose comment (Snakemake: rule and wildcards) holds `comment`, oldest first."""
        fields = {"id": "i", "state": "T", "restarts": "", "comment": "k", "limit": "l"}
        fields |= {"memory": "m", "gres": "b", "cpus": "C", "start": "S", "partition": "P"}
        asked = [name for name, letter in fields.items() if letter]
        layout = "|".join(f"%{fields[name]}" for name in asked)
        lines = self.ask("squeue", "--states=all", "--noheader", "-S", "i", "-o", layout)
        rows = [dict(zip(asked, line.split("|"), strict=True)) for line in lines.splitlines()]
        return [row for row in rows if comment in row["comment"]]

    def show(self, job: str) -> dict[str, str]:
        """All that slurmctld knows of a job."""
        text = self.ask("scontrol", "--oneliner", "show", "job", job)
        return dict(word.split("=", 1) for word in text.split() if "=" in word)

    def idle(self) -> bool:
        """Whether no job waits, runs or is being cleaned up."""
        return not self.ask("squeue", "--noheader")


@contextmanager
def started(folder: Path) -> Iterator[Slurm]:
    """A SLURM in an empty folder, for as long as the block runs.

    Raises:
        RuntimeError: it did not come up; the text has the last lines of its logs.
    """
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    (folder / "slurm.conf").write_text(
        CONFIG.format(
            host=_host(),
            folder=folder,
            ctld_port=_free_port(),
            node_port=_free_port(),
            node=f"CPUs={CPUS} RealMemory={MEMORY_MB} Gres=gpu:{len(GPUS)}",
            grace=GRACE_SECONDS,
        )
    )
    # With File=, a line stands for one card.
    lines = [f"NodeName=one Name=gpu File={path}" for path in GPUS]
    (folder / "gres.conf").write_text("\n".join(lines) + "\n")
    # The executor plugin takes every SLURM_* variable, SLURM_CONF too, from the environment of the
    # srun within a job. On a cluster /etc/slurm/slurm.conf is there; here srun has to be told.
    srun = folder / "bin" / "srun"
    program = shutil.which("srun", path=SYSTEM_PATH)
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={folder / "slurm.conf"} exec {program} "$@"\n')
    srun.chmod(0o755)
    slurm = Slurm(folder)
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        daemons.append(_daemon(slurm, "slurmctld", "-D"))
        daemons.append(_daemon(slurm, "slurmd", "-D", "-N", "one"))
        _wait_until_up(slurm, daemons)
        yield slurm
    finally:
        _stop(slurm, daemons)


def _daemon(slurm: Slurm, *command: str) -> subprocess.Popen[bytes]:
    with (slurm.folder / f"{command[0]}.out").open("wb") as output:
        return subprocess.Popen(
            command,
            env=slurm.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C at the tests reaches them through `_stop` only
            preexec_fn=_end_with_parent,
        )


def _end_with_parent() -> None:
    """Ask Linux for a SIGTERM when the test runner dies, even by SIGKILL."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _wait_until_up(slurm: Slurm, daemons: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and all(daemon.poll() is None for daemon in daemons):
        try:
            if slurm.ask("sinfo", "-h", "-p", "work", "-o", "%T", timeout=5) == "idle":
                return
        except (RuntimeError, subprocess.TimeoutExpired):
            pass
        time.sleep(0.1)
    logs = [*slurm.folder.glob("*.log"), *slurm.folder.glob("*.out")]
    tails = [f"{path.name}:\n{path.read_text(errors='replace')[-1000:]}" for path in logs]
    raise RuntimeError("SLURM did not come up\n" + "\n".join(tails))


def _stop(slurm: Slurm, daemons: list[subprocess.Popen[bytes]]) -> None:
    """End jobs first, then the daemons, last one first."""
    if len(daemons) == 2 and daemons[0].poll() is None:
        try:
            for state in ("PENDING", "RUNNING", "SUSPENDED"):
                slurm.ask("scancel", "--quiet", "--full", "--signal=KILL", f"--state={state}")
                slurm.ask("scancel", "--quiet", f"--state={state}")
            deadline = time.monotonic() + 30
            while not slurm.idle() and time.monotonic() < deadline:
                time.sleep(0.2)
        except (RuntimeError, subprocess.TimeoutExpired):
            pass
    for daemon in reversed(daemons):
        daemon.terminate()
        try:
            daemon.wait(timeout=15)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def _host() -> str:
    return socket.gethostname().split(".")[0]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
