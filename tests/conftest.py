"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# Before torch is imported: two threads on busy cores spend their time waiting for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples in every run, and no verdict on time: machines are noisy.
settings.register_profile("project", deadline=None, derandomize=True)
settings.load_profile("project")

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Path of a file of the shared reference data, or a skip that names what is absent."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"reference data not present: shared/{name}")
        return path

    return find


ALLOWED_SKIPS = (
    "reference data not present: shared/",
    "no ffmpeg program",
    "no SLURM programs",
    "no browser",
)


def pytest_make_parametrize_id(val: object) -> str | None:
    """The id of a case made of bytes: their number, for compressed bytes may hold the time of day.

    Two workers of one run that name a case differently stop the run.
    """
    return f"{len(val)} bytes" if isinstance(val, bytes) else None


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A test may only be skipped for a reason that is listed here: none is lost unnoticed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    reasons = [str(report.longrepr[-1]).removeprefix("Skipped: ") for report in skipped]
    unknown = [reason for reason in reasons if not reason.startswith(ALLOWED_SKIPS)]
    if unknown and session.exitstatus == 0:
        reporter.write_line(f"skipped for a reason that is not listed: {unknown}", red=True)
        session.exitstatus = 1
