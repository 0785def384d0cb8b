"""A trained run in a folder of its own, for another machine: ours, or a plain open_clip model."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from discovla.deploy.inference import CONFIG_NAME, run_files
from discovla.deploy.model_card import model_card
from discovla.errors import UserError
from discovla.methods.lora import LoRA
from discovla.models.backbone import BPE_NAME, merges_file, read_architecture
from discovla.models.dims import CONFIG_NAME as CLIP_CONFIG
from discovla.models.dims import LOCAL_PREFIX
from discovla.models.merging import merge_lora
from discovla.models.retriever import Retriever
from discovla.storage.files import atomic_path, atomic_write, write_json
from discovla.training.checkpoint import (
    BESIDE,
    Run,
    load_trained,
    read_adapter,
    read_run_config,
    trained_parameters,
)
from discovla.training.trainer import ADAPTER_NAME

CARD, BACKBONE, CLIP_WEIGHTS = "README.md", "backbone", "open_clip_model.safetensors"
FORMATS = ("discovla", "open_clip")
_CHANGES_NO_FORWARD = {"trainable", "qkv", "text_inputs", "losses"}
"""Hooks that a method may have and be a plain CLIP once its LoRA is merged."""


def export(folder: str | Path, output: str | Path, form: str = "discovla") -> None:
    """Write a run as a folder that loads elsewhere, with a model card.

    Args:
        folder: of one seed of a run, as for `inference.load`.
        output: the folder to make; must not hold anything yet.
        form: `discovla` = adapter, config and, where they are files here, CLIP's weights, for
            `discovla.load`; `open_clip` = merged weights, for open_clip itself.

    Raises:
        UserError: no such run, a folder that is not empty, or a method that open_clip has not.
    """
    if form not in FORMATS:
        raise UserError(f"format {form!r}; allowed: {', '.join(FORMATS)}")
    config_path, adapter = run_files(folder)
    target = Path(output)
    if target.exists() and any(target.iterdir()):
        raise UserError(f"{target}: not empty; give a new folder")
    config = read_run_config(config_path)
    metadata = read_adapter(adapter)[1] if adapter else {}
    if form == "open_clip":
        run, _ = load_trained(config_path, adapter, "cpu")
        _write_open_clip(run, target)
    else:
        load_trained(config_path, adapter, "cpu")  # refuses what does not belong together
        _write_discovla(config, adapter, target)
    # Last, so that a folder with a card is whole.
    with atomic_write(target / CARD) as handle:
        handle.write(model_card(config, metadata, Path(folder), form))


def _write_discovla(config: Mapping[str, Any], adapter: Path | None, target: Path) -> None:
    backbone = dict(config["backbone"])
    merges = merges_file(backbone)
    if backbone["architecture"].startswith(LOCAL_PREFIX):
        source = Path(backbone["architecture"].removeprefix(LOCAL_PREFIX))
        _copy(source / CLIP_CONFIG, target / BACKBONE / CLIP_CONFIG)
        backbone["architecture"] = f"{LOCAL_PREFIX}{BESIDE}{BACKBONE}"
    if merges is not None:
        _copy(merges, target / BACKBONE / BPE_NAME)
        backbone["tokenizer"] = f"{BESIDE}{BACKBONE}/{BPE_NAME}"
    weights = backbone["weights"]
    if weights is not None and Path(weights).is_file():
        _copy(Path(weights), target / BACKBONE / Path(weights).name)
        backbone["weights"] = f"{BESIDE}{BACKBONE}/{Path(weights).name}"
    if adapter is not None:
        _copy(adapter, target / ADAPTER_NAME)
    write_json(target / CONFIG_NAME, {**config, "backbone": backbone})


def _copy(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def _write_open_clip(run: Run, target: Path) -> None:
    make_plain(run.retriever)
    architecture = run.config["backbone"]["architecture"]
    model, mean, std = read_architecture(architecture, "the run's config")
    pixels = {"mean": list(mean), "std": list(std), "interpolation": "bicubic"}
    write_json(target / CLIP_CONFIG, {"model_cfg": model, "preprocess_cfg": pixels})
    if (merges := merges_file(run.config["backbone"])) is not None:
        _copy(merges, target / BPE_NAME)
    state = {n: t.detach().contiguous() for n, t in run.retriever.clip.state_dict().items()}
    with atomic_path(target / CLIP_WEIGHTS) as temporary:
        save_file(state, temporary, metadata={"run_id": run.run_id})


def make_plain(retriever: Retriever) -> None:
    """Merge what can be merged, so that the retriever's CLIP alone is the model.

    Raises:
        UserError: a method that does more in the forward pass than CLIP with other weights.
    """
    method = retriever.method
    more = [name for name in method.hooks_used() if name not in _CHANGES_NO_FORWARD]
    if more or (trained_parameters(retriever) and not _in_clip(retriever)):
        because = f" ({', '.join(more)})" if more else ""
        raise UserError(
            f"method {method.settings.method} does not fit into a plain CLIP: it changes the "
            f"forward pass{because}, and open_clip has no such attention, tokens or adapters. "
            "Export it with --format discovla"
        )
    if isinstance(method, LoRA):
        merge_lora(retriever)


def _in_clip(retriever: Retriever) -> bool:
    """Whether everything trained is CLIP's own, or LoRA."""
    own = (name for name in trained_parameters(retriever) if not name.startswith("clip."))
    return isinstance(retriever.method, LoRA) or not any(own)
