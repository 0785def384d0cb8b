"""Who may import whom (docs/architecture.md), read from the sources and tried for real."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "discovla").rglob("*.py"))
FORBIDDEN = {
    "discovla": ("snakemake",),
    "discovla/models": ("discovla.data", "discovla.training", "discovla.captioning"),
    "discovla/methods": ("discovla.data", "discovla.training", "discovla.captioning"),
    "discovla/losses.py": ("discovla.models", "discovla.methods", "discovla.data"),
    "discovla/retrieval/metrics.py": ("torch", "pandas"),
    "discovla/retrieval/postprocess.py": ("torch", "pandas"),
    "discovla/settings.py": ("torch", "pandas", "yaml", "discovla.methods"),
    "discovla/storage": tuple(f"discovla.{name}" for name in ("data", "models", "training")),
    "discovla/experiments.py": ("torch", "pandas"),
    "discovla/report/parts.py": ("torch", "pandas"),
    "discovla/report/page": ("torch", "discovla.training", "discovla.models"),
}
DEMO = "discovla.demo"


def imported(path: Path, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def below(name: str, parent: str) -> bool:
    return name == parent or name.startswith(f"{parent}.")


@pytest.mark.parametrize("place", FORBIDDEN)
def test_arrows(place: str) -> None:
    target = ROOT / place
    files = sorted(target.rglob("*.py")) if target.is_dir() else [target]
    assert files
    for path in files:
        for name in imported(path):
            for banned in FORBIDDEN[place]:
                assert not below(name, banned), f"{path.relative_to(ROOT)} imports {name}"


def test_only_the_command_line_and_the_demo_itself_know_the_demo() -> None:
    for path in SOURCES:
        place = path.relative_to(ROOT).as_posix()
        if place.startswith("discovla/demo/") or place == "discovla/cli/demo.py":
            continue
        assert not any(below(name, DEMO) for name in imported(path)), place


def test_commands_import_heavy_libraries_only_when_they_run() -> None:
    heavy = ("torch", "transformers", "open_clip", "pandas", "matplotlib", "av", "lance")
    for path in (ROOT / "discovla" / "cli").glob("*.py"):
        for name in imported(path, top_level_only=True):
            assert not any(below(name, library) for library in heavy), f"{path.name}: {name}"


def test_planning_needs_neither_torch_nor_pandas() -> None:
    code = (
        "import sys; from discovla.experiments import Experiments; "
        "e = Experiments.load(); [e.runs(d) for d in e.datasets]; "
        "bad = {'torch', 'pandas', 'transformers', 'open_clip'} & set(sys.modules); "
        "sys.exit(f'imported: {bad}' if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_source_files_stay_short() -> None:
    for path in SOURCES:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= 400, f"{path.relative_to(ROOT)} has {lines} lines"
