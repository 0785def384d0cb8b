"""The page in a real browser: query, hits, a clip that plays from the moment, keyboard only."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from discovla.search.build import build
from discovla.search.model import Source
from discovla.search.store import Index
from tests.browser import browser
from tests.search.conftest import NAMES, OPTIONS
from tests.search.server import serving

WIDTHS = (1280, 390)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser("--autoplay-policy=no-user-gesture-required") as started:
        yield started


@pytest.fixture(scope="module")
def address(index: Index) -> Iterator[str]:
    with serving(index.folder) as port:
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(params=WIDTHS)
def page(request: pytest.FixtureRequest, chromium: Any, address: str) -> Iterator[Page]:
    """The empty page; nothing may be written to the console or thrown while a test runs."""
    page = chromium.new_page(viewport={"width": request.param, "height": 800})
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))
    page.on("request", lambda r: r.url.startswith(address) or faults.append(f"outside: {r.url}"))
    page.goto(address)
    yield page
    page.close()
    assert faults == []


def wait(page: Page, condition: str) -> None:
    """Until JavaScript holds; playwright's own way is refused by the page's security policy."""
    end = time.monotonic() + 30
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(50)


def test_a_query_leads_to_a_clip_that_plays_from_its_moment(page: Page) -> None:
    expect(page.locator("#q")).to_be_focused()
    page.fill("#q", "a large red square")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("article")).to_have_count(len(NAMES))
    expect(page.get_by_role("status")).to_contain_text(f"{len(NAMES)} of {len(NAMES)} videos")
    # The best moment: the clip's own controls begin there.
    first = page.locator("article").first
    start = float(first.locator("video").get_attribute("data-start") or "nan")
    first.locator("video").evaluate("v => { v.play(); }")
    wait(page, "document.querySelector('video').readyState >= 2")
    assert first.locator("video").evaluate("v => v.currentTime") >= start - 0.05
    # Another moment: a click plays from there.
    other = page.locator("article").nth(1)
    button = other.locator(".moment").nth(1)
    begin = float(button.get_attribute("data-start") or "nan")
    button.click()
    wait(page, "document.querySelectorAll('video')[1].readyState >= 2")
    wait(page, f"document.querySelectorAll('video')[1].currentTime > {begin}")
    time, width, error = other.locator("video").evaluate(
        "v => [v.currentTime, v.videoWidth, v.error && v.error.code]"
    )
    assert begin < time <= 3.1
    assert (width, error) == (64, None)
    # One clip at a time.
    assert first.locator("video").evaluate("v => v.paused")


def test_names_and_captions_with_html_are_text(page: Page) -> None:
    page.goto(page.url + "?q=<b>&by=moment")
    names = page.locator("article h2").all_inner_texts()
    assert sorted(names) == sorted(NAMES)
    expect(page.locator(".caption").first).to_have_text("<script>alert('x')</script> & a \"shape\"")
    assert page.locator("article img, article b, article script").count() == 0
    expect(page.locator("#q")).to_have_value("<b>")
    expect(page.locator("input[value=moment]")).to_be_checked()


def test_the_keyboard_is_enough(page: Page) -> None:
    page.keyboard.type("a small blue circle")
    page.keyboard.press("Enter")
    expect(page.locator("article")).to_have_count(len(NAMES))
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#results")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator("video").first).to_be_focused()
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('.moment')"):
            break
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    start = float(page.evaluate("document.activeElement.dataset.start"))
    page.keyboard.press("Enter")
    wait(page, f"document.querySelector('video').currentTime > {start}")
    page.keyboard.press("/")
    expect(page.locator("#q")).to_be_focused()


def test_everything_fits_the_width_and_can_be_told_apart(page: Page) -> None:
    page.goto(page.url + "?q=shape")
    expect(page.locator("article")).to_have_count(len(NAMES))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    unnamed = "e => !(e.ariaLabel || e.innerText || e.labels?.length)"
    controls = page.locator("a, button, input, video")
    assert not any(control.evaluate(unnamed) for control in controls.all())
    small = "e => e.getBoundingClientRect().height < 24"
    assert not any(
        control.evaluate(small) for control in page.locator("button, input[type=search]").all()
    )
    page.locator("article").nth(2).get_by_role("link", name="more like this").click()
    expect(page.get_by_role("status")).to_contain_text("like the one you chose")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_stands_in_anybodys_way(chromium: Any, address: str, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    with chromium.new_context(color_scheme=scheme, bypass_csp=True) as place:
        shown = place.new_page()
        for query in ("", "?q=shape&by=moment"):
            shown.goto(address + query)
            found = Axe().run(shown).response
            assert len(found["passes"]) > 20  # that it looked at all
            assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in found["violations"]] == []


def test_a_file_that_no_browser_plays_says_so(
    tmp_path: Path, chromium: Any, model: Source, clips: list[Path]
) -> None:
    import av

    (tmp_path / "videos").mkdir()
    with (
        av.open(str(clips[0])) as source,
        av.open(str(tmp_path / "videos" / "old.avi"), "w") as out,
    ):
        stream = out.add_stream("mpeg4", rate=8)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for frame in source.decode(video=0):
            out.mux(stream.encode(frame.reformat(format="yuv420p")))
        out.mux(stream.encode())
    build(tmp_path / "videos", tmp_path / "index", model, window=1.0, options=OPTIONS)
    with serving(tmp_path / "index") as port:
        page = chromium.new_page()
        page.goto(f"http://127.0.0.1:{port}/?q=x")
        expect(page.locator(".cannot")).to_be_hidden()
        page.locator(".moment").first.click()
        expect(page.locator(".cannot")).to_be_visible(timeout=20_000)
        with page.expect_download() as download:
            page.get_by_role("link", name="Download the original").click()
        assert download.value.suggested_filename == "old.avi"
        assert (
            Path(download.value.path()).read_bytes()
            == (tmp_path / "videos" / "old.avi").read_bytes()
        )
        page.close()
