"""LSMDC: three files of tab-separated columns without a header; the sentence is the sixth.

Clip ids hold dots and times (`0017_Pianist_00.23.28.872-00.23.34.843`) and may occur on several
rows, one sentence each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from discovla.data.annotations.base import Clip, to_table
from discovla.data.annotations.sources import read_lines
from discovla.errors import UserError

RULES = {"encoding": ("utf-8", "latin-1")}
FILES = {
    "train": "LSMDC16_annos_training.csv",
    "val": "LSMDC16_annos_val.csv",
    "test": "LSMDC16_challenge_1000_publictect.csv",  # spelt so by its authors
}
COLUMNS = 6


def required_files(rules: Mapping[str, str]) -> list[str]:
    """File names below the root."""
    return list(FILES.values())


def read(root: Path, rules: Mapping[str, str]) -> pd.DataFrame:
    """Canonical rows in file order; clips are whole files, so the times stay unused."""
    return to_table(
        pair for split, name in FILES.items() for pair in _pairs(root / name, split, rules)
    )


def _pairs(path: Path, split: str, rules: Mapping[str, str]) -> Iterator[tuple[Clip, str]]:
    for number, line in enumerate(read_lines(path, rules["encoding"]), start=1):
        # Quotes are ordinary characters here, so this is no job for a CSV reader.
        columns = line.split("\t")
        place = f"{path}, line {number}"
        if len(columns) != COLUMNS:
            raise UserError(f"{place}: {len(columns)} tab-separated columns, expected {COLUMNS}")
        clip_id, caption = columns[0], columns[-1]
        yield Clip(clip_id, split, (clip_id,), place=place), caption
