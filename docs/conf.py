"""The manual: `make docs` writes build/docs/html, offline and without warnings."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path, PurePosixPath

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx
from sphinx.util import logging

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(ROOT))
os.chdir(ROOT)  # settings and plans are read from config/

from discovla.manual.pages import fill  # noqa: E402

project = "DiscoVLA"
author = "the contributors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = "DiscoVLA, reproduced"
html_static_path = ["_static"]
html_css_files = ["manual.css"]
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
nitpick_ignore = [("py:exc", "UserError")]  # named in "Raises:" by its short name
default_role = "code"  # `names` in docstrings
autodoc_typehints = "none"
autodoc_member_order = "bysource"

#: Pages whose text lies elsewhere in the repository: `<!-- page: ../FILE -->` in docs/NAME.md.
STAND_INS = {
    (page.parent / match[1]).resolve(): page.name
    for page in sorted(DOCS.glob("*.md"))
    if (match := re.search(r"^<!-- page: (\S+) -->$", page.read_text("utf-8"), re.MULTILINE))
}
ORIGINS = {name: path for path, name in STAND_INS.items()}


def moved(target: str, origin: Path) -> str | None:
    """Where a relative link of the file `origin` leads in the manual; None = to a folder."""
    path, _, anchor = target.partition("#")
    place = (origin.parent / path).resolve()
    anchor = f"#{anchor}" if anchor else ""
    if place in STAND_INS:
        return STAND_INS[place] + anchor
    if place == ROOT / "README.md":
        return "index.md"
    if place.is_dir():
        return None
    return str(PurePosixPath(os.path.relpath(place, DOCS))) + anchor


def complete(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put made parts and the text of stand-ins into a page, and turn its links around."""
    page = DOCS / f"{docname}.md"
    if not page.exists():
        return
    origin = ORIGINS.get(page.name, page)
    text = source[0]
    if origin.exists() and origin != page:
        text = origin.read_text(encoding="utf-8")
    elif origin != page:
        logging.getLogger(__name__).warning("%s stands in for %s, which is absent", page, origin)

    def link(match: re.Match[str]) -> str:
        words, target = match[1], match[2]
        if "://" in target or target.startswith(("#", "mailto:")):
            return match[0]
        place = moved(target, origin)
        return f"[{words}]({place})" if place else words

    text = re.sub(r"(?<!!)\[([^][]*)\]\(([^()\s]+)\)", link, text)
    source[0] = fill(text)


def no_addresses(
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """R@10 is no e-mail address, as docutils believes."""
    lines[:] = [re.sub(r"R@(\d)", r"R\\@\1", line) for line in lines]


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.connect("autodoc-process-docstring", no_addresses)
    app.add_lexer("csv", TextLexer)
    app.connect("source-read", complete)
