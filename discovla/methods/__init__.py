"""The methods: one file each, found by name and imported only when asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from discovla.errors import UserError

if TYPE_CHECKING:
    from discovla.models.hooks import Method

METHODS = {
    "zero_shot": "zero_shot:ZeroShot",
    "full": "full:FullFineTuning",
    "lora": "lora:LoRA",
    "discovla": "discovla:DiscoVLA",
    "prompt": "prompt:Prompt",
    "adapter": "adapter:Adapter",
    "rap": "rap:RAP",
    "vop": "vop:VoP",
    "vop_fp": "vop:VoPFramePosition",
    "vop_fc": "vop:VoPFrameContext",
    "dgl": "dgl:DGL",
    "tempme": "tempme:TempMe",
    "mv_adapter": "mv_adapter:MVAdapter",
}
"""Method → module of this package and its class."""


def method_class(name: str) -> type[Method]:
    """The class of a method; raise `UserError` with the known names."""
    if name not in METHODS:
        raise UserError(f"setting method: no method {name!r}; known: {', '.join(METHODS)}")
    module, _, kind = METHODS[name].partition(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), kind)
