"""From what was gathered to HTML: Jinja templates in which every value is escaped."""

from __future__ import annotations

import base64
import functools
import hashlib
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from discovla.experiments import Experiments
from discovla.provenance import code_version
from discovla.report.gallery import Gallery
from discovla.report.page.content import Gatherer
from discovla.report.page.media import frame_address
from discovla.report.page.tables import heading
from discovla.storage.files import atomic_write

TEMPLATES = Path(__file__).parent / "templates"


def write_report(
    experiments: Experiments,
    dataset: str,
    output: str | Path,
    *,
    results: Path = Path("results"),
    resources: Path = Path("resources"),
) -> list[str]:
    """Write the page of a dataset from what exists on disk.

    Args:
        experiments: what tables, rows and runs are.
        dataset: whose page it is.
        output: the HTML file.
        results, resources: folders of the workflow.

    Returns:
        What could not be read; the page says so too.

    Raises:
        UserError: no such dataset.
    """
    content = Gatherer(experiments, dataset, results, resources).gather()
    with atomic_write(output) as handle:
        handle.write(_rendered("report.html", content=content, code=code_version()))
    return content.problems


def write_gallery(gallery: Gallery, output: str | Path) -> None:
    """Write one gallery as a page of its own."""
    with atomic_write(output) as handle:
        handle.write(_rendered("gallery.html", gallery=gallery, code=code_version()))


def _rendered(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(values)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(picture=frame_address, heading=heading)
    style, script = (_own(name) for name in ("page.css", "page.js"))
    environment.globals.update(style=style, script=script, policy=_policy(style, script))
    return environment


def _own(name: str) -> Markup:
    """A file of this package that goes into the page as it is."""
    return Markup(f"\n{(TEMPLATES / name).read_text(encoding='utf-8')}")


def _policy(style: str, script: str) -> str:
    """What a browser may do with the page: show it, run this very script, and fetch nothing."""
    style_hash, script_hash = (
        base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
        for text in (style, script)
    )
    return (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"style-src 'sha256-{style_hash}'; script-src 'sha256-{script_hash}'"
    )
