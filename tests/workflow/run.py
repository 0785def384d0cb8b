"""Starting the workflow in a folder of its own, as a user would."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
SNAKEMAKE = Path(sys.executable).parent / "snakemake"


def workspace(folder: Path) -> Path:
    """A folder with a copy of config/, in which the workflow can run beside the repository."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(ROOT / "config", folder / "config")
    return folder


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change one YAML file in place."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def command(folder: Path, *arguments: str, cores: int = 2) -> list[str]:
    """The command line of one run."""
    place = ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    return [str(SNAKEMAKE), *arguments, *place, "--cores", str(cores)]


def environment() -> dict[str, str]:
    """Nothing of the caller's environment but HOME: also no activated virtual environment."""
    return {"PATH": "/usr/bin:/bin", "HOME": os.environ.get("HOME", "/"), "LC_ALL": "C.UTF-8"}


# Python imports this by itself when it starts: every process of the workflow is watched.
_NO_NETWORK = """
import socket

def refuse(*arguments, **options):
    with open({log!r}, "a") as log:
        print(*arguments, file=log)
    raise OSError("no network here")

def connect(own, address):
    return _connect(own, address) if own.family == socket.AF_UNIX else refuse(address)

_connect, socket.socket.connect, socket.getaddrinfo = socket.socket.connect, connect, refuse
"""


def without_network(folder: Path) -> tuple[dict[str, str], Path]:
    """An environment in which Python reaches no network, and the file that names who tried."""
    folder.mkdir()
    log = folder / "asked.txt"
    (folder / "sitecustomize.py").write_text(_NO_NETWORK.format(log=str(log)))
    return {**environment(), "PYTHONPATH": str(folder)}, log


def snakemake(
    folder: Path,
    *arguments: str,
    cores: int = 2,
    timeout: float = 900,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run to the end and return what it printed (stderr within stdout)."""
    return subprocess.run(
        command(folder, *arguments, cores=cores),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        env=environment() if env is None else env,
        check=False,
    )


def planned(output: str) -> dict[str, int]:
    """Jobs by rule, from the table that Snakemake prints."""
    block = re.search(r"^job\s+count\n[-\s]+\n(.*?)^total", output, flags=re.MULTILINE | re.DOTALL)
    if block is None:
        return {}
    lines = (line.split() for line in block[1].splitlines() if line.strip())
    return {name: int(count) for name, count in lines}
