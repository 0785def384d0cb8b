"""docs/differences.yaml → docs/differences.md: `python -m discovla.report.differences`.

What each choice does on the demo comes from docs/effects.csv, the table that the workflow made of
docs/effects.yaml.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from discovla.storage.files import atomic_write

SOURCE = Path("docs/differences.yaml")
EFFECTS = Path("docs/effects.csv")
PAGE = Path("docs/differences.md")
BASE = "base"
"""The row of docs/effects.yaml with which the others are compared."""
HEAD = """\
# Paper and released code

Made from `differences.yaml`. The recipe `released` (our default) follows the code that made the
numbers; the recipe `paper` follows the print, and is trained as the rows "DiscoVLA (as printed)"
of Tables 1 and 5.

| item | the paper | the released code | our setting | default | recipe `paper` | on the demo |
|---|---|---|---|---|---|---|
"""
FOOT = """
## On the demo

The last column says what a choice changes on [the demo](demo.md): R@sum on its 300 test videos,
text to video and video to text, less that of the row DiscoVLA ({base}). Nothing but the named
setting is changed from `config/datasets/demo.yaml`, whose own choices are part of the comparison:
`kl_reduction: batch_mean`, `detach_teacher: true`, `clip_norm: 1.0`, `augment: none`.

{seeds}, commit `{commit}`.
{spread}

<!-- not run: changes the checkout -->
```bash
cp docs/effects.yaml config/tables/
snakemake results/demo/effects.csv --cores 2
cp results/demo/effects.csv docs/
python -m discovla.report.differences
```

measures them again.
"""
ONE_SEED = """\
With one seed these are single draws: Table 5 on the demo spreads by 0.7 to 6.0 points of R@sum
between seeds, so a change below about 5 points says nothing, and larger ones ask for more seeds."""
SEEDS = """\
The standard deviation over seeds stands behind each change; one that is smaller than twice its
deviation says nothing."""


def render() -> str:
    """The page as Markdown."""
    items = yaml.safe_load(SOURCE.read_text(encoding="utf-8"))
    with EFFECTS.open(encoding="utf-8", newline="") as handle:
        effects = {row["row"]: row for row in csv.DictReader(handle)}
    keys = ("item", "paper", "code", "setting", "default", "paper_value")
    lines = [
        "| " + " | ".join([*(str(item[key]) for key in keys), _measured(item, effects)]) + " |"
        for item in items
    ]
    base = effects[BASE]
    foot = FOOT.format(
        base=f"{float(base['t2v_R@sum']):.1f} and {float(base['v2t_R@sum']):.1f}",
        seeds=f"Seed{'s' * (int(base['n_seeds']) > 1)} {base['seeds']}",
        commit=base["commit"][:7],
        spread=ONE_SEED if int(base["n_seeds"]) == 1 else SEEDS,
    )
    return HEAD + "\n".join(lines) + "\n" + foot


def _measured(item: Mapping[str, Any], effects: Mapping[str, Mapping[str, str]]) -> str:
    """The changes of R@sum in the rows that an item names, or what it says instead."""
    names = item["measured"]
    if isinstance(names, str):
        return names
    return "; ".join(_change(effects[name], effects[BASE]) for name in names)


def _change(row: Mapping[str, str], base: Mapping[str, str]) -> str:
    parts = []
    for direction in ("t2v", "v2t"):
        name = f"{direction}_R@sum"
        if not row[name]:
            continue
        text = f"{direction} {float(row[name]) - float(base[name]):+.1f}"
        if row[f"{name}_std"]:
            text += f" ± {float(row[f'{name}_std']):.1f}"
        parts.append(text.replace("-", "−"))
    return f"`{row['label']}`: {', '.join(parts)}"


if __name__ == "__main__":
    with atomic_write(PAGE) as handle:
        handle.write(render())
