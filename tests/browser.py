"""A real browser, headless, for pages that people open."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]


@contextmanager
def browser(*options: str) -> Iterator[Any]:
    """A started browser with a new profile; skips where no such program is installed.

    Args:
        options: of its command line, besides those that every test needs.
    """
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(PROGRAMS)} is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=[*OPTIONS, *options])
        try:
            yield started
        finally:
            started.close()


@contextmanager
def opened(started: Any, path: Path, width: int, **context: Any) -> Iterator[tuple[Any, list[str]]]:
    """A page, and all that its console says and all that it asks of a network."""
    heard: list[str] = []
    with started.new_context(viewport={"width": width, "height": 844}, **context) as place:
        page = place.new_page()
        page.on("console", lambda message: heard.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("request", lambda request: _note(heard, request.url))
        page.goto(path.as_uri())
        yield page, heard


def _note(heard: list[str], url: str) -> None:
    if not url.startswith(("file:", "data:")):
        heard.append(f"asked for {url}")
