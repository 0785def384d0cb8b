"""Pages that are made from data say what the data says, and links lead somewhere."""

from __future__ import annotations

import itertools
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from discovla.config import load_yaml
from discovla.report.differences import PAGE, SOURCE, render
from tests.docs.pages import ROOT, anchors, links, pages, tokens


def test_differences_page_is_made_from_its_data() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), (
        "docs/differences.md is out of date: run 'python -m discovla.report.differences'"
    )


def test_differences_name_every_setting_of_the_paper_recipe() -> None:
    items = yaml.safe_load(Path(SOURCE).read_text(encoding="utf-8"))
    named = {name.strip() for item in items for name in item["setting"].split(",")}
    assert set(load_yaml("config/defaults.yaml")["recipes"]["paper"]) <= named


@pytest.mark.parametrize("page", pages(), ids=lambda path: path.name)
def test_pages_hold_no_placeholders(page: Path) -> None:
    assert not re.search(r"@[A-Z]{3,}@", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", pages(), ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Files exist, and so do the headings in them; the manual's build checks its pages again."""
    for link in links(page):
        if "://" in link or link.startswith("mailto:"):
            continue
        target, _, anchor = link.partition("#")
        place = (page.parent / target).resolve() if target else page
        assert place.exists(), f"{page.name}: {link}: there is no such file"
        if anchor:
            known = anchors(place)
            assert anchor in known, (
                f"{page.name}: {link}: there is no such heading: {sorted(known)}"
            )


@pytest.mark.parametrize("page", pages(), ids=lambda path: path.name)
def test_a_page_has_one_title_and_no_heading_is_skipped(page: Path) -> None:
    levels = [int(token.tag[1]) for token in tokens(page) if token.type == "heading_open"]
    assert levels[:1] == [1]
    assert levels.count(1) == 1
    assert all(deeper <= level + 1 for level, deeper in itertools.pairwise(levels))


def test_every_page_of_the_manual_is_in_its_table_of_contents() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = index.splitlines()
    for page in ROOT.glob("docs/*.md"):
        assert page.stem not in ("search", "genindex"), (
            f"docs/{page.name}: a page of the site's own"
        )
        assert page.stem in listed or page.stem == "index", f"docs/{page.name}: add it to index.md"


def test_a_page_that_stands_in_names_its_file() -> None:
    found = 0
    for page in ROOT.glob("docs/*.md"):
        if match := re.search(r"^<!-- page: (.*) -->$", page.read_text("utf-8"), re.MULTILINE):
            assert (page.parent / match[1]).is_file(), f"{page.name}: {match[1]}"
            found += 1
    assert found >= 3


def test_the_citation_holds_to_its_form() -> None:
    """The parts of Citation File Format 1.2.0 that this file uses."""
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert found["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "type", "version", "license"} <= set(found)
    assert (found["version"], found["license"]) == (project["version"], project["license"])
    paper = found["preferred-citation"]
    assert paper["type"] == "conference-paper"
    assert paper["conference"]["name"]
    for person in paper["authors"]:
        assert set(person) == {"family-names", "given-names"}
