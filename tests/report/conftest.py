"""Results to look at, built once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.report import results


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> results.World:
    """Not to be changed: tests that damage something copy it."""
    return results.build(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="session")
def page(world: results.World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report page of that world."""
    from discovla.report.page.render import write_report

    path = tmp_path_factory.mktemp("page") / "report.html"
    places = {"results": world.results, "resources": world.resources}
    assert write_report(world.experiments, results.DATASET, path, **places) == []
    return path
