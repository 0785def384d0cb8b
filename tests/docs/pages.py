"""Reading the pages: code blocks with what is said of them, inline code, links and anchors.

A `bash` block holds commands that a reader types. A comment on the line above it says why it is not
simply run:

    <!-- run: after the demo -->        run by `python -m tests.docs`, where the demo's results are
    <!-- run: with make demo -->        makes the demo or a part of it: run by the same, before
    <!-- not run: needs the data -->    checked only; REASONS lists what may stand there

A `console` block is a sample: `$ command` lines, which are checked, and what they print.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.anchors.index import slugify

ROOT = Path(__file__).resolve().parents[2]
REASONS = (
    "needs the data",
    "needs a GPU",
    "needs SLURM",
    "needs the network",
    "needs root",
    "needs another clone",
    "needs a server",
    "long",
    "stays open",
    "changes the checkout",
    "yours",  # names to be replaced by the reader's own
)
CHEAP, AFTER_DEMO, WITH_DEMO, CHECKED = "cheap", "after the demo", "with make demo", "checked"
MARKER = re.compile(r"<!-- (run|not run): (.+?) -->")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language and text, and when it is run."""

    page: str
    line: int
    language: str
    text: str
    when: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Every page of the documentation."""
    places = ("*.md", "docs/*.md", "benchmarks/*.md")
    return sorted(path for place in places for path in ROOT.glob(place))


@functools.cache
def tokens(path: Path) -> list[Token]:
    """The page as markdown-it reads it."""
    return MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8"))


def blocks(path: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order; `ValueError` for an unknown marker."""
    name = path.relative_to(ROOT).as_posix()
    marker = ""
    for token in tokens(path):
        if token.type == "html_block":
            marker = token.content.strip()
        elif token.type == "fence" and token.map:
            language = token.info.split()[0] if token.info.strip() else ""
            line = token.map[0] + 1
            yield Block(name, line, language, token.content, _when(marker, f"{name}:{line}"))
            marker = ""
        elif token.type not in ("fence", "list_item_open"):
            marker = ""


def _when(marker: str, where: str) -> str:
    if not (match := MARKER.fullmatch(marker)):
        return CHEAP
    kind, reason = match.groups()
    if kind == "run" and reason in (AFTER_DEMO, WITH_DEMO):
        return reason
    if kind == "not run" and reason in REASONS:
        return CHECKED
    raise ValueError(f"{where}: {marker} is no marker; see tests/docs/pages.py")


def inline_code(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of every `code span`, line breaks as blanks."""
    for token in tokens(path):
        for child in token.children or ():
            if child.type == "code_inline" and token.map:
                yield token.map[0] + 1, " ".join(child.content.split())


def links(path: Path) -> Iterator[str]:
    """The targets of links and images."""
    for token in tokens(path):
        for child in token.children or ():
            target = child.attrs.get("href") or child.attrs.get("src")
            if target:
                yield str(target)


@functools.cache
def anchors(path: Path) -> frozenset[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: list[str] = []
    read = tokens(path)
    for token, following in itertools.pairwise(read):
        if token.type == "heading_open":
            text = "".join(
                child.content
                for child in following.children or ()
                if child.type in ("text", "code_inline")
            )
            slug = slugify(text)
            again = sum(name == slug or name.startswith(f"{slug}-") for name in found)
            found.append(f"{slug}-{again}" if slug in found else slug)
    return frozenset(found)
