"""Every method on the tiny CLIP, with settings of its own that fit it."""

from __future__ import annotations

from typing import Any

from discovla.models.retriever import Retriever
from tests.models import tiny

FRAMES = 4
OPTIONS: dict[str, dict[str, Any]] = {
    "zero_shot": {},
    "full": {},
    "lora": {},
    "discovla": {"alpha": 0.0, "beta": 0.0},
    "prompt": {"prompts": 3},
    "adapter": {"bottleneck": 4},
    "rap": {"modulation_rank": 2, "displaced": 0.5},
    "vop": {"prompts": 4},
    "vop_fp": {"prompts": 4, "frame_prompts": 2, "frame_layers": 2},
    "vop_fc": {"prompts": 4, "frame_prompts": 2, "frame_layers": 2},
    "dgl": {"prompts": 2, "generator": "linear"},
    "tempme": {
        "patch_merges": 1,
        "merge_layers": [1, 2],
        "merge_clips": [2, 2],
        "joined_percent": 30,
        "inner_percent": 10,
    },
    "mv_adapter": {
        "bottleneck": 8,
        "adapter_heads": 2,
        "tie": "input",
        "tied_layers": 1,
        "tie_width": 4,
        "clip_bias_lr": 0.02,
    },
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, options) for name, options in OPTIONS.items()},
    "vop_f": ("vop", {"prompts": 4, "frame_layers": 2}),
    "dgl_transformer": ("dgl", {"prompts": 2, "generator": "transformer"}),
    "mv_adapter_output": ("mv_adapter", {**OPTIONS["mv_adapter"], "tie": "output"}),
}
"""Name of a test case → method and its settings."""


def model(name: str, frames: int = FRAMES, shaken: bool = True, **changes: Any) -> Retriever:
    """One of `VARIANTS` over the tiny CLIP, its own tensors at random values or at their start."""
    method, options = VARIANTS[name]
    return tiny.model(method, shaken, **{**options, "frames": frames, **changes})
