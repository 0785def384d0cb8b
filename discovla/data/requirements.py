"""Weights that a dataset's runs will need: on disk, in the hub's cache, to be fetched, or missing.

Known before any GPU is used: a model that cannot be loaded must not be found out after hours of
captioning. No heavy library is imported.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_OPENAI_LIKE = re.compile(r"ViT-([BLH])-(\d+)")
_SIZES = {"B": "base", "L": "large", "H": "huge"}


@dataclass(frozen=True)
class Weights:
    """One set of weights and where it stands."""

    name: str
    """What needs them, e.g. `backbone vit-b32`."""
    source: str
    """File, open_clip tag or hub id, as configured."""
    status: str
    """`present`, `to fetch` or `missing`."""
    hint: str = ""
    """How to bring them."""
    needed_by: tuple[str, ...] = ()
    """Tables and figures, of those that the paper prints for the dataset."""
    training_only: bool = False
    """Whether a dataset without training clips can do without it."""


def backbone_weights(name: str, entry: Mapping[str, Any]) -> Weights:
    """The CLIP weights of one entry of config/backbones.yaml."""
    source, title = str(entry["weights"]), f"backbone {name}"
    hint = (
        f"'snakemake clip_weights', or bring the file and set weights.{name} in config/config.yaml"
    )
    if entry["weights"] is None or Path(source).is_file():
        return Weights(title, source, "present")
    if "/" in source or Path(source).suffix:
        return Weights(title, source, "missing", hint)
    files = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    return _from_hub(title, source, _timm_repository(entry["architecture"], source), files, hint)


def captioner_weights(name: str, entry: Mapping[str, Any]) -> Weights:
    """The LLaVA-NeXT weights of one entry of config/captioners.yaml; only training needs them."""
    return replace(_captioner_weights(name, entry), training_only=True)


def _captioner_weights(name: str, entry: Mapping[str, Any]) -> Weights:
    source, title = str(entry["model"]), f"captioner {name}"
    hint = (
        f"'snakemake llava_weights', or bring the folder and set captioner_path.{name} in "
        "config/config.yaml"
    )
    if (Path(source) / "config.json").is_file():
        return Weights(title, source, "present")
    if Path(source).exists() or not _HUB_ID.fullmatch(source):
        return Weights(title, source, "missing", hint)
    files = ("model.safetensors.index.json", "model.safetensors")
    return _from_hub(title, source, source, files, hint, entry.get("revision"))


def _timm_repository(architecture: str, tag: str) -> str | None:
    """Where open_clip fetches OpenAI's weights; None for architectures not known here."""
    match = _OPENAI_LIKE.match(architecture)
    if match is None or tag != "openai":
        return None
    return f"timm/vit_{_SIZES[match[1]]}_patch{match[2]}_clip_224.{tag}"


def _from_hub(
    title: str,
    source: str,
    repository: str | None,
    files: tuple[str, ...],
    hint: str,
    revision: str | None = None,
) -> Weights:
    if repository is not None:
        from huggingface_hub import try_to_load_from_cache

        for file in files:
            if isinstance(try_to_load_from_cache(repository, file, revision=revision), str):
                return Weights(title, source, "present")
    status = "missing" if hub_is_offline() else "to fetch"
    return Weights(title, source, status, f"HF_HUB_OFFLINE=1 forbids fetching: unset it, or {hint}")


def hub_is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids the network."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
