"""Our models against numbers recorded from the authors' released code, one file per method."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from discovla.errors import UserError
from discovla.parity.case import Case, limit_of, within_limits

__all__ = ["KINDS", "compare", "limit_of", "within_limits"]

KINDS: dict[str, Mapping[str, Any]] = {
    "discovla": {"H_V": None, "H_L": None},
    "tempme": {"tome_r": None},
    "dgl": {"n_local_prompts": None},
    "clip4clip": {"method": "clip4clip-meanP"},
    "mv_adapter": {"method": "mv-adapter"},
    "prompt": {"method": "ivlp"},
    "vop": {"method": "vop-base"},
    "bertadam": {"per_tensor_max_norm": None},
}
"""Module of this package → keys (and values) by which a case's JSON is known as its own."""


def compare(path: str | Path, **changes: Any) -> dict[str, float]:
    """Errors of every tensor of a golden case, by its name there; see `case.errors`.

    Args:
        path: the case's JSON file.
        changes: settings that differ from the released code's, to see that they are noticed.

    Raises:
        UserError: a file is absent, damaged or lacks something, or no case is known by its keys.
    """
    case = Case.read(path)
    for kind, marks in KINDS.items():
        if all(k in case.values and v in (None, case.values[k]) for k, v in marks.items()):
            module = importlib.import_module(f"{__name__}.{kind}")
            found: dict[str, float] = module.compare(case, **changes)
            return found
    raise UserError(f"{path}: not a golden case of {', '.join(KINDS)}")
