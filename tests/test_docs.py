"""Pages that are made from data say what the data says."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from discovla.config import load_yaml
from discovla.report.differences import PAGE, SOURCE, render


def test_differences_page_is_made_from_its_data() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), (
        "docs/differences.md is out of date: run 'python -m discovla.report.differences'"
    )


def test_differences_name_every_setting_of_the_paper_recipe() -> None:
    items = yaml.safe_load(Path(SOURCE).read_text(encoding="utf-8"))
    named = {name.strip() for item in items for name in item["setting"].split(",")}
    assert set(load_yaml("config/defaults.yaml")["recipes"]["paper"]) <= named


def test_pages_hold_no_placeholders() -> None:
    for page in [*Path().glob("*.md"), *Path("docs").glob("*.md")]:
        assert not re.search(r"@[A-Z]{3,}@", page.read_text(encoding="utf-8")), page


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*Path().glob("*.md"), *Path("docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert "://" in target or (page.parent / target).exists(), f"{page}: {target}"
