"""Annotations of all datasets in one form; `READERS` has one small reader per dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from discovla.data.annotations import activitynet, demo, didemo, lsmdc, manifest, msrvtt
from discovla.data.annotations.base import (
    data_id,
    of_split,
    read_annotations,
    read_metadata,
    write_annotations,
)
from discovla.errors import UserError
from discovla.storage.files import sha256_file

__all__ = [
    "READERS",
    "Reader",
    "convert",
    "data_id",
    "get_reader",
    "of_split",
    "read_annotations",
    "read_metadata",
    "write_annotations",
]


@dataclass(frozen=True)
class Reader:
    """How one dataset's files are read."""

    name: str
    choices: Mapping[str, tuple[str, ...]]
    """Rule → allowed values, the default first."""
    read: Callable[[Path, Mapping[str, str]], pd.DataFrame]
    required_files: Callable[[Mapping[str, str]], list[str]]
    next_step: str
    """What to do when its files are absent."""

    def rules(self, given: Mapping[str, Any]) -> dict[str, str]:
        """All rules, defaults filled in; `UserError` for an unknown rule or value."""
        for name, value in given.items():
            if name not in self.choices:
                known = sorted(self.choices) or "none"
                raise UserError(f"reader {self.name} has no rule {name!r}; known: {known}")
            if value not in self.choices[name]:
                allowed = ", ".join(self.choices[name])
                raise UserError(f"rule {name} of {self.name} is {value!r}; allowed: {allowed}")
        return {name: given.get(name, allowed[0]) for name, allowed in self.choices.items()}

    def missing_files(self, root: Path, rules: Mapping[str, str]) -> list[str]:
        """Required files that `root` lacks."""
        return [name for name in self.required_files(rules) if not (root / name).is_file()]


_README = 'README, section "Bring the data"'


def _reader(module: ModuleType, next_step: str = "") -> Reader:
    name = module.__name__.rpartition(".")[2]
    next_step = next_step or f"'snakemake {name}_annotations --cores 1', then {_README}"
    return Reader(name, module.RULES, module.read, module.required_files, next_step)


READERS = {
    reader.name: reader
    for reader in (
        _reader(msrvtt),
        _reader(lsmdc, next_step=_README),
        _reader(activitynet),
        _reader(didemo),
        _reader(manifest, next_step="docs/own-videos.md"),
        _reader(demo, next_step="'snakemake demo_world --cores 1'"),
    )
}


def get_reader(name: str) -> Reader:
    """A reader by its name; `UserError` with the known names."""
    if name not in READERS:
        raise UserError(f"no annotation reader {name!r}; known: {', '.join(READERS)}")
    return READERS[name]


def convert(
    dataset: str, reader: str, root: str | Path, rules: Mapping[str, Any], output: str | Path
) -> dict[str, Any]:
    """Read a dataset's own files and write the canonical table.

    Args:
        dataset: name of the dataset, stored and used in messages.
        reader: a key of `READERS`.
        root: folder with the dataset's files.
        rules: rules that differ from the reader's defaults.
        output: Parquet file to write.

    Returns:
        The metadata written: rules, sources, counts, data_id.

    Raises:
        UserError: files are absent, or a row is bad; it names them.
    """
    found, root = get_reader(reader), Path(root)
    full = found.rules(rules)
    missing = found.missing_files(root, full)
    if missing:
        raise UserError(f"{dataset}: no {', '.join(missing)} in {root}. Next: {found.next_step}.")
    files = found.required_files(full)
    sources = {name: sha256_file(root / name) for name in files}
    table = found.read(root, full)
    if table.empty:
        raise UserError(
            f"{dataset}: no captions in {', '.join(str(root / name) for name in files)}"
        )
    return write_annotations(table, output, dataset=dataset, rules=full, sources=sources)
