"""The report page in a real browser, as wide as a desk and as narrow as a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import browser, opened
from tests.report.results import HOSTILE

pytestmark = pytest.mark.slow

WIDTHS = (1280, 390)
#: What overflows its parent and is not inside a box that scrolls.
OVERFLOW = """() => [...document.querySelectorAll("main *")].filter((element) => {
  const box = element.getBoundingClientRect();
  return box.width > 0 && box.right > document.documentElement.clientWidth + 1
    && !element.closest(".scroll, pre, .hidden");
}).map((element) => element.outerHTML.slice(0, 100))"""
FOCUSABLE = "a[href], button, input, summary, [tabindex='0']"


@pytest.fixture(scope="module")
def started() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_and_says_nothing(started: Any, page: Path, width: int) -> None:
    with opened(started, page, width) as (shown, heard):
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        assert shown.evaluate(OVERFLOW) == []
        # What is folded away fits too.
        shown.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        assert shown.evaluate(OVERFLOW) == []
        assert heard == []


def test_a_wide_table_scrolls_inside_its_box(started: Any, page: Path) -> None:
    with opened(started, page, 390) as (shown, _):
        box = shown.locator("div.scroll").first
        assert box.evaluate("b => b.scrollWidth > b.clientWidth")
        box.focus()
        shown.keyboard.press("ArrowRight")
        shown.wait_for_function("() => document.querySelector('div.scroll').scrollLeft > 0")


def test_texts_with_html_stay_texts(started: Any, page: Path) -> None:
    with opened(started, page, 1280) as (shown, heard):
        headings = shown.locator("article.captioned h3").all_text_contents()
        assert headings == [HOSTILE, HOSTILE]
        assert shown.title() != "hacked"
        assert shown.locator("img[src=x]").count() == 0
        assert heard == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_stands_in_anybodys_way(started: Any, page: Path, width: int, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    context = {"color_scheme": scheme, "reduced_motion": "reduce", "bypass_csp": True}
    with opened(started, page, width, **context) as (shown, _):
        shown.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        found = Axe().run(shown).response
        assert len(found["passes"]) > 20  # that it looked at all
        wrong = [(v["id"], [n["html"][:120] for n in v["nodes"]]) for v in found["violations"]]
        assert wrong == []


def test_the_keyboard_reaches_everything(started: Any, page: Path) -> None:
    with opened(started, page, 1280) as (shown, _):
        wanted = shown.evaluate(
            "(all) => [...document.querySelectorAll(all)].filter(e => e.checkVisibility()).length",
            FOCUSABLE,
        )
        shown.evaluate("window.reached = new Set()")
        for _ in range(wanted + 5):
            shown.keyboard.press("Tab")
            seen = shown.evaluate(
                """() => {
                  const here = document.activeElement;
                  if (here === document.body) return "";
                  window.reached.add(here);
                  return getComputedStyle(here).outlineStyle;
                }"""
            )
            assert seen != "none"  # one sees where one is
        assert shown.evaluate("window.reached.size") == wanted
        shown.reload()
        shown.keyboard.press("Tab")
        shown.keyboard.press("Enter")  # the first stop skips to the results
        assert shown.evaluate("document.activeElement.id") == "main"


def test_rows_are_sorted_and_filtered(started: Any, page: Path) -> None:
    with opened(started, page, 1280) as (shown, _):
        column = """() => [...document.querySelectorAll("table.numbers")][0].tBodies[0].rows"""
        order = (
            f"(i) => [...({column})()].map(r => r.cells[i].dataset.order ?? r.cells[i].textContent)"
        )
        before = shown.evaluate(order, 3)
        button = shown.locator("table.numbers").first.locator("button.sort").nth(3)
        button.focus()
        shown.keyboard.press("Enter")
        numbers = [value for value in before if value]
        sorted_down = sorted(numbers, key=float, reverse=True)
        assert shown.evaluate(order, 3) == [*sorted_down, *([""] * (len(before) - len(numbers)))]
        assert shown.locator("th[aria-sort=descending]").count() == 1
        button.press("Enter")
        assert shown.evaluate(order, 3)[: len(numbers)] == sorted_down[::-1]
        button.press("Enter")
        assert shown.evaluate(order, 3) == before


def test_forms_are_copied(started: Any, page: Path) -> None:
    with opened(started, page, 1280) as (shown, _):
        shown.context.grant_permissions(["clipboard-read", "clipboard-write"])
        shown.get_by_role("button", name="Copy as LaTeX").first.click()
        said = "() => document.getElementById('status').textContent === 'LaTeX copied'"
        shown.wait_for_function(said)
        copied = shown.evaluate("navigator.clipboard.readText()")
        assert copied == shown.locator("pre[data-form=LaTeX]").first.text_content()
        assert "\\toprule" in copied
        with shown.expect_download() as waiting:
            shown.get_by_role("link", name="Save as CSV").first.click()
        assert waiting.value.suggested_filename == "table5.csv"
        assert Path(waiting.value.path()).read_text().startswith("table,row,label")


def test_on_paper_tables_have_their_headings(started: Any, page: Path) -> None:
    with opened(started, page, 1280) as (shown, _):
        shown.emulate_media(media="print")
        heads = shown.locator("table.numbers").first.locator(".heads th")
        assert heads.all_inner_texts()[:4] == ["row", "backbone", "trained", "R@1"]
        assert all(head.evaluate("h => h.innerText.trim() !== ''") for head in heads.all())
        assert not shown.locator(".contents").is_visible()
        assert not shown.get_by_role("button", name="Copy as LaTeX").first.is_visible()


def test_without_javascript_everything_is_there(started: Any, page: Path) -> None:
    with opened(started, page, 390, java_script_enabled=False) as (shown, heard):
        assert shown.locator("button").count() == 0
        shown.get_by_text("LaTeX", exact=True).first.click()
        assert shown.locator("pre[data-form=LaTeX]").first.is_visible()
        assert heard == []
