"""Which code made a result."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from discovla import provenance
from discovla.errors import UserError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small package that stands for this one."""
    folder = tmp_path / "project" / "discovla"
    folder.mkdir(parents=True)
    shutil.copy(provenance.PACKAGE / "provenance.py", folder)
    monkeypatch.setattr(provenance, "PACKAGE", folder)
    monkeypatch.setattr(provenance, "__file__", str(folder / "provenance.py"))
    provenance.code_version.cache_clear()
    yield folder
    provenance.code_version.cache_clear()


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_outside_a_checkout_there_is_no_commit(package: Path) -> None:
    found = provenance.code_version()
    assert found["commit"] is None
    assert found["dirty"] is None
    assert len(found["package_sha"]) == 64


def test_a_copy_inside_another_checkout_has_no_commit(package: Path) -> None:
    git(package.parent, "init", "-q")
    git(package.parent, "commit", "-q", "--allow-empty", "-m", "other project")
    assert provenance.code_version()["commit"] is None


def test_commit_and_changes(package: Path) -> None:
    git(package.parent, "init", "-q")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-q", "-m", "all")
    clean = provenance.code_version()
    assert clean["commit"] == git(package, "rev-parse", "HEAD")
    assert clean["dirty"] is False
    with (package / "provenance.py").open("a") as file:
        file.write("\n# more\n")
    provenance.code_version.cache_clear()
    changed = provenance.code_version()
    assert changed["dirty"] is True
    assert changed["package_sha"] != clean["package_sha"]


def test_the_digest_covers_names_and_bytes_of_python_files_only(package: Path) -> None:
    first = provenance.package_sha(package)
    (package / "notes.txt").write_text("x")
    assert provenance.package_sha(package) == first
    (package / "sub").mkdir()
    (package / "sub" / "a.py").write_text("1")
    second = provenance.package_sha(package)
    (package / "sub" / "a.py").rename(package / "sub" / "b.py")
    assert len({first, second, provenance.package_sha(package)}) == 3


def test_versions_are_those_installed() -> None:
    versions = provenance.code_version()["versions"]
    assert versions["numpy"] == metadata.version("numpy")
    assert provenance._version("no-such-distribution") is None


def test_a_git_that_was_killed_is_no_absent_commit(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    with pytest.raises(UserError, match="git was killed"):
        provenance.code_version()
