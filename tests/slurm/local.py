"""A SLURM on this machine that lives as long as the tests: real daemons, all in one folder.

Nodes claim more than the machine has (`config_overrides`), so that requests for GPUs and memory can
be tried anywhere: the two GPUs of each are /dev/null and /dev/zero. Two nodes are two daemons.
There is no accounting database. The daemons are children of this process, ended by their ids.
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
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
GresTypes=gpu,token
PartitionName=work Nodes=ALL Default=YES PreemptMode=OFF PriorityTier=5 State=UP
PartitionName=spare Nodes=ALL GraceTime={grace} PriorityTier=1 State=UP
PartitionName=urgent Nodes=ALL PriorityTier=9 State=UP
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
        fields = {"id": "i", "state": "T", "comment": "k", "limit": "l", "memory": "m"}
        layout = "|".join(f"%{letter}" for letter in fields.values())
        lines = self.ask("squeue", "--states=all", "--noheader", "-S", "i", "-o", layout)
        rows = [dict(zip(fields, line.split("|"), strict=True)) for line in lines.splitlines()]
        return [row for row in rows if comment in row["comment"]]

    def show(self, job: str) -> dict[str, str]:
        """All that slurmctld knows of a job."""
        text = self.ask("scontrol", "--oneliner", "show", "job", job)
        return dict(word.split("=", 1) for word in text.split() if "=" in word)

    def idle(self) -> bool:
        """Whether no job waits, runs or is being cleaned up."""
        return not self.ask("squeue", "--noheader")


@contextmanager
def started(folder: Path, nodes: int = 1) -> Iterator[Slurm]:
    """A SLURM of one or more nodes in a new folder, for as long as the block runs.

    Raises:
        RuntimeError: it did not come up; the text has the last lines of its logs.
    """
    names = [f"node{number}" for number in range(1, nodes + 1)]
    for name in ("state", "bin", *(f"spool.{name}" for name in names)):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    config = CONFIG.format(host=_host(), folder=folder, ctld_port=_free_port(), grace=GRACE_SECONDS)
    owns = f"CPUs={CPUS} RealMemory={MEMORY_MB} Gres=gpu:{len(GPUS)},token:1"
    for name in names:
        address = f"NodeHostname={_host()} NodeAddr=127.0.0.1 Port={_free_port()}"
        config += f"NodeName={name} {address} {owns} State=UNKNOWN\n"
    (folder / "slurm.conf").write_text(config)
    # With File=, a line stands for one card.
    lines = [f"NodeName={name} Name=gpu File={path}" for name in names for path in GPUS]
    lines += [f"NodeName={name} Name=token Count=1" for name in names]
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
        daemons += [_daemon(slurm, "slurmd", "-D", "-N", name) for name in names]
        _wait_until_up(slurm, daemons)
        yield slurm
    finally:
        _stop(slurm, daemons)


def _daemon(slurm: Slurm, *command: str) -> subprocess.Popen[bytes]:
    with (slurm.folder / f"{command[0]}.{command[-1]}.out").open("wb") as output:
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
            if (
                slurm.ask("sinfo", "-h", "-p", "work", "-o", "%D %T", timeout=5)
                == f"{len(daemons) - 1} idle"
            ):
                return
        except (RuntimeError, subprocess.TimeoutExpired):
            pass
        time.sleep(0.1)
    logs = [*slurm.folder.glob("*.log"), *slurm.folder.glob("*.out")]
    tails = [f"{path.name}:\n{path.read_text(errors='replace')[-1000:]}" for path in logs]
    raise RuntimeError("SLURM did not come up\n" + "\n".join(tails))


def _stop(slurm: Slurm, daemons: list[subprocess.Popen[bytes]]) -> None:
    """End jobs first, then the daemons, last one first."""
    if len(daemons) > 1 and daemons[0].poll() is None:
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
