"""docs/differences.yaml → docs/differences.md: `python -m discovla.report.differences`."""

from __future__ import annotations

from pathlib import Path

import yaml

from discovla.files import atomic_write

SOURCE = Path("docs/differences.yaml")
PAGE = Path("docs/differences.md")
HEAD = """\
# Paper and released code

Made from `differences.yaml`. The recipe `released` (our default) follows the code that made the
numbers; the recipe `paper` follows the print, and is trained as the rows "DiscoVLA (as printed)"
of Tables 1 and 5.

| item | the paper | the released code | our setting | default | recipe `paper` |
|---|---|---|---|---|---|
"""


def render() -> str:
    """The page as Markdown."""
    items = yaml.safe_load(SOURCE.read_text(encoding="utf-8"))
    keys = ("item", "paper", "code", "setting", "default", "paper_value")
    lines = ["| " + " | ".join(str(item[key]) for key in keys) + " |" for item in items]
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    with atomic_write(PAGE) as handle:
        handle.write(render())
