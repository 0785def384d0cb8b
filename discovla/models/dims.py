"""Sizes of a CLIP, known before any module is built: this module needs no torch."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from discovla.storage.files import read_json

VISION, TEXT = "vision", "text"
LOCAL_PREFIX = "local-dir:"
CONFIG_NAME = "open_clip_config.json"
_HEAD_WIDTH, _CONTEXT = 64, 77


@dataclass(frozen=True)
class TowerDims:
    """Size of one tower; `tokens` = class token and patches, or rows of the positional table."""

    width: int
    layers: int
    heads: int
    tokens: int


@dataclass(frozen=True)
class Dims:
    """Sizes of a CLIP: both towers and the joint dimension."""

    vision: TowerDims
    text: TowerDims
    embed: int
    patch_size: int
    """Side of a patch in pixels."""

    def tower(self, name: str) -> TowerDims:
        """The tower called `vision` or `text`."""
        return self.vision if name == VISION else self.text


def read_dims(architecture: str) -> Dims | None:
    """Sizes of an open_clip architecture, or of a `local-dir:FOLDER`.

    None where its description cannot be found: `backbone.load_backbone` then says what is wrong.
    """
    config = _model_config(architecture)
    if config is None:
        return None
    vision, text = config["vision_cfg"], config["text_cfg"]
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    width = vision["width"]
    heads = width // vision.get("head_width", _HEAD_WIDTH)
    return Dims(
        vision=TowerDims(width, vision["layers"], heads, patches + 1),
        text=TowerDims(
            text["width"], text["layers"], text["heads"], text.get("context_length", _CONTEXT)
        ),
        embed=config["embed_dim"],
        patch_size=vision["patch_size"],
    )


def _model_config(architecture: str) -> Any:
    if architecture.startswith(LOCAL_PREFIX):
        path = Path(architecture.removeprefix(LOCAL_PREFIX)) / CONFIG_NAME
        return read_json(path)["model_cfg"] if path.is_file() else None
    # Found without importing open_clip, which takes seconds.
    package = importlib.util.find_spec("open_clip")
    for folder in (package and package.submodule_search_locations) or ():
        path = Path(folder) / "model_configs" / f"{architecture}.json"
        if path.is_file():
            return read_json(path)
    return None
