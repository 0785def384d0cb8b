"""What the place of a result says of it: a sound file of another run is told by its own metadata.

Checksums find damage, not a whole file in the wrong place: features of another seed, the adapter of
another run, a copy from another dataset. Its metadata name what it is, and so does its path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from discovla.errors import UserError

_DATA = r"resources/(?P<dataset>[^/]+)/"
_RESULTS = r"results/(?P<dataset>[^/]+)/"
_RUN = _RESULTS + r"runs/(?P<run_id>[^/]+)/"
_SEED = _RUN + r"seed(?P<seed>\d+)/"
_CAPTIONS = r"results/[^/]+/captions/(?P<captions_id>[0-9a-f]{10})"
_FEATURES = r"(?P<split>test|val|bank)\.(?:safetensors|parquet)"
_PLACES: list[tuple[re.Pattern[str], dict[str, str]]] = [
    (re.compile(f"(?:^|/){path}$"), fixed)
    for path, fixed in (
        (rf"{_DATA}(?:annotations|clips)\.parquet", {}),
        (r"resources/[^/]+/frames/(?P<frames_id>[0-9a-f]{10})/(?P<shard>\d+-of-\d+)\.arrow", {}),
        (rf"{_CAPTIONS}\.parquet", {"shard": "all"}),
        (rf"{_CAPTIONS}/(?P<shard>\d+-of-\d+)\.parquet", {}),
        (rf"{_RESULTS}check\.json", {}),
        (rf"{_RUN}config\.json", {}),
        (rf"{_SEED}adapter\.safetensors", {"selection": "last"}),
        (rf"{_SEED}checkpoints/(?P<selection>[^/]+)\.safetensors", {}),
        (rf"{_SEED}features\.{_FEATURES}", {"selection": "last"}),
        (rf"{_SEED}epochs/(?P<selection>[^/]+)\.{_FEATURES}", {}),
        (rf"{_SEED}cost\.json", {}),
        (rf"{_SEED}metrics\.(?P<post>[a-z]+)\.json", {"selection": "last", "split": "test"}),
        (rf"{_SEED}metrics\.(?P<post>[a-z]+)\.(?P<selection>[a-z_]+)\.json", {"split": "test"}),
        (r"results/[^/]+/(?P<table>[^/]+)/(?P<row>[^/]+)\.json", {}),
    )
]
"""Paths of the workflow's files, with what each must be besides what its path says."""
_NAMES = {"post": "name", "selection": "rule"}
"""Entries of metrics that are objects, and the key that holds their name."""


def check_place(
    path: str | Path, said: Mapping[str, Any], advice: str = "Remove it and run again."
) -> None:
    """Refuse a file that is, by its metadata, the result of something else than its path names.

    Files outside of `resources/` and `results/` may be anything; so may what a file does not say.

    Args:
        path: where it lies.
        said: its metadata or content: dataset, run_id, seed, split, …
        advice: what to do; ends the text of the error.

    Raises:
        UserError: it names the file, what it is and what it should be.
    """
    place = Path(path).absolute().as_posix()
    for pattern, fixed in _PLACES:
        if match := pattern.search(place):
            for name, wanted in {**fixed, **match.groupdict()}.items():
                found = _named(name, said.get(name))
                if found is not None and str(found) != wanted:
                    raise UserError(
                        f"{path}: not the file of this place, though sound: its {name} is {found}, "
                        f"{wanted} belongs here. {advice}"
                    )
            return


def _named(name: str, value: Any) -> Any:
    return value.get(_NAMES.get(name, "")) if isinstance(value, dict) else value
