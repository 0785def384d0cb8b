"""The methods: one file each, found by name and imported only when asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from discovla.errors import UserError

if TYPE_CHECKING:
    from discovla.models.hooks import Method

METHODS = {
    "zero_shot": "ZeroShot",
    "full": "FullFineTuning",
    "lora": "LoRA",
    "discovla": "DiscoVLA",
}
"""Module of this package → its class."""


def method_class(name: str) -> type[Method]:
    """The class of a method; raise `UserError` with the known names."""
    if name not in METHODS:
        raise UserError(f"setting method: no method {name!r}; known: {', '.join(METHODS)}")
    return getattr(importlib.import_module(f"{__name__}.{name}"), METHODS[name])
