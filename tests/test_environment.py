"""The ways to install the project say the same."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml


def _lock(root: Path) -> dict[str, set[str]]:
    """Versions by package for Python 3.11 on Linux."""
    found: dict[str, set[str]] = {}
    pattern = re.compile(r"^([a-z0-9_.-]+)==([^\s;]+)(?: ; ([^\\\n]+))?", re.MULTILINE)
    for name, version, marker in pattern.findall((root / "requirements.lock").read_text()):
        if "python_full_version >= '3.12'" not in marker:
            found.setdefault(name, set()).add(version)
    return found


def _name(requirement: str) -> str:
    return re.split(r"[<>=;\[ ]", requirement)[0].lower().replace("_", "-")


def test_conda_environment_equals_the_lock(root: Path) -> None:
    lock = _lock(root)
    environment = yaml.safe_load((root / "environment.yml").read_text())
    pins = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    for pin in pins:
        version = pin.split("==")[1].split(";")[0].strip()
        assert lock[_name(pin)] == {version}, pin
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *extras["search"], *extras["slurm"]]
    assert {_name(pin) for pin in pins} == {_name(d) for d in needed}


def test_lock_is_hashed_and_carries_no_addresses(root: Path) -> None:
    text = (root / "requirements.lock").read_text()
    assert "://" not in text
    blocks = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)
    packages = [block for block in blocks if "==" in block.split("\n")[0]]
    assert len(packages) > 50
    assert all("--hash=sha256:" in block for block in packages)


def test_torch_is_not_the_version_whose_builds_do_not_match(root: Path) -> None:
    assert "2.13.0" not in _lock(root)["torch"]


def test_the_container_is_made_from_the_same_lock_by_the_same_uv(root: Path) -> None:
    """It cannot be built where there is no container engine; what can be held together, is."""
    recipe = (root / "Dockerfile").read_text()
    makefile = (root / "Makefile").read_text()
    (version,) = re.findall(r"uv==(\S+)", recipe)
    assert f"UV_VERSION := {version}\n" in makefile
    assert re.search(r"^FROM python:3\.1[123]-slim", recipe, re.MULTILINE)
    assert "requirements.lock" in recipe
    copied = {
        name.removeprefix("./")
        for sources in re.findall(r"^COPY (.+) \S+$", recipe, re.MULTILINE)
        for name in sources.split()
    }
    assert all((root / name).exists() for name in copied)
    # Without it a build is sent all videos, results and environments that lie in this folder.
    sent = (root / ".dockerignore").read_text().splitlines()
    assert "*" in sent
    assert {line[1:] for line in sent if line.startswith("!")} == copied
