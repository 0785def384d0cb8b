"""A folder as after `git clone`, in which commands of the documentation can be run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from discovla.experiments import Experiments
from tests.docs.commands import filled
from tests.docs.pages import ROOT, Block, blocks
from tests.workflow.run import edit, environment, workspace

#: What a checkout has besides config/, which commands may change, and the folders they fill.
LINKED = (
    *("Snakefile", "workflow", "discovla", "tests", "benchmarks", "docs", "profiles", "Makefile"),
    *("README.md", "CONTRIBUTING.md", "pyproject.toml", "requirements.lock", ".venv"),
)
#: The environment is taken as it is: `make` must not install anything.
INSTALLED = 'make() { command make -o .venv/.installed "$@"; }\n'


def place(folder: Path) -> Path:
    """Make such a folder."""
    workspace(folder)
    for name in LINKED:
        if (ROOT / name).exists():
            (folder / name).symlink_to(ROOT / name)
    for name in ("results", "resources", "data"):
        (folder / name).mkdir()
    return folder


def with_examples(folder: Path) -> Path:
    """Put what the pages add into `config/`: a dataset, a method, a row, the table of effects."""
    config = folder / "config"
    shutil.copy(ROOT / "docs" / "effects.yaml", config / "tables")
    dataset, entry = _yaml("own-videos.md")
    (config / "datasets" / "mine.yaml").write_text(dataset, encoding="utf-8")
    data = yaml.safe_load(entry)["data"]
    edit(config / "config.yaml", lambda content: content["data"].update(data))
    method, row = map(yaml.safe_load, _yaml("own-method.md"))
    edit(config / "methods.yaml", lambda content: content.update(method))
    edit(config / "tables" / "variants.yaml", lambda content: content["rows"].append(row))
    return folder


def _yaml(page: str) -> list[str]:
    return [block.text for block in blocks(ROOT / "docs" / page) if block.language == "yaml"]


def run_block(block: Block, folder: Path, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run a block as one script in `folder`: the first command that fails ends it."""
    text = block.text
    if (folder / "config").exists():
        experiments = Experiments.load(folder=folder / "config")
        # Only words that are paths: a program may have braces of its own.
        text = re.sub(r"[^\s'\"]+/[^\s'\"]+", lambda m: filled(m[0], experiments), text)
    home = environment()
    home["PATH"] = f"{Path(sys.executable).parent}:{home['PATH']}"
    home["PYTHONPATH"] = str(folder)
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"{INSTALLED}{text}"],
        cwd=folder,
        env=home | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
