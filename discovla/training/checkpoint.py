"""Trained tensors on disk, and a whole run opened in one call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from discovla.devices import resolve_device
from discovla.errors import UserError
from discovla.methods.options import read_settings
from discovla.models.backbone import Backbone, load_backbone
from discovla.models.retriever import Retriever, build_retriever
from discovla.provenance import code_version
from discovla.settings import RunSettings
from discovla.storage.files import read_record
from discovla.storage.tensors import read_tensors, save_tensors

SCHEMA_VERSION = 1
BESIDE = "beside:"
"""Stands for the config's own folder in the paths of an exported run."""
_CONFIG_KEYS = ("schema", "run_id", "dataset", "settings", "backbone", "frames_id", "captions_id")


@dataclass(frozen=True)
class Run:
    """A run ready to be trained or evaluated."""

    config: Mapping[str, Any]
    settings: RunSettings
    backbone: Backbone
    retriever: Retriever

    @property
    def run_id(self) -> str:
        """`{method}-{backbone}-{hash}`."""
        return str(self.config["run_id"])


def read_run_config(path: str | Path) -> dict[str, Any]:
    """The resolved settings of a run; raise `UserError` naming file and key if they are not."""
    config = read_record(path)
    if not isinstance(config, dict):
        raise UserError(f"{path}: a run's config.json is expected, with keys {_CONFIG_KEYS}")
    check_run_config(config, str(path))
    # What an exported run brings along lies beside its config.
    here = f"{Path(path).resolve().parent}/"
    config["backbone"] = {
        key: value.replace(BESIDE, here) if isinstance(value, str) else value
        for key, value in config["backbone"].items()
    }
    return config


def check_run_config(config: Mapping[str, Any], where: str) -> None:
    """Refuse a run's config with an absent key or of another schema."""
    if absent := [key for key in _CONFIG_KEYS if key not in config]:
        raise UserError(
            f"{where}: key {absent[0]!r} is absent; the workflow's rule run_config "
            "writes this file: remove it and run again"
        )
    if config["schema"] != SCHEMA_VERSION:
        raise UserError(
            f"{where}: schema is {config['schema']!r}; this version reads {SCHEMA_VERSION}"
        )


def open_run(
    config: Mapping[str, Any], *, seed: int = 0, device: str = "auto", where: str = "config.json"
) -> Run:
    """Backbone and model of a run before training.

    Args:
        config: content of the run's config.json.
        seed: of the initial values of new tensors.
        device: see `resolve_device`.
        where: the config's file, for error messages.
    """
    check_run_config(config, where)
    settings = read_settings(config["settings"], where)
    target = resolve_device(device)
    backbone = load_backbone(config["backbone"])
    retriever = build_retriever(settings, backbone, seed).to(target).eval()
    return Run(config, settings, backbone, retriever)


def trained_parameters(retriever: Retriever) -> dict[str, torch.nn.Parameter]:
    """Trained tensors of a model by name."""
    return {n: p for n, p in retriever.named_parameters() if p.requires_grad}


def load_trained(
    config_path: str | Path,
    adapter_path: str | Path | None,
    device: str = "auto",
    backbone: Mapping[str, Any] | None = None,
) -> tuple[Run, dict[str, str]]:
    """A run with its trained tensors, or, if it trains nothing, as it is; the adapter's metadata.

    `backbone` changes keys of the config's entry of that name.

    Raises:
        UserError: an adapter of another run, one that does not fit, or one where none belongs.
    """
    config = read_run_config(config_path)
    config["backbone"] = {**config["backbone"], **(backbone or {})}
    run = open_run(config, device=device, where=str(config_path))
    trains = bool(trained_parameters(run.retriever))
    if adapter_path is None:
        if trains:
            raise UserError(
                f"run {run.run_id} has trained tensors; give --adapter "
                "…/seed{s}/adapter.safetensors, which 'discovla train' writes"
            )
        return run, {}
    if not trains:
        raise UserError(
            f"run {run.run_id} trains nothing (method {run.settings.method}); leave --adapter out"
        )
    state, metadata = read_adapter(adapter_path)
    if metadata["run_id"] != run.run_id:
        raise UserError(
            f"{adapter_path}: trained by run {metadata['run_id']}, but {config_path} is run "
            f"{run.run_id}; give files of one run"
        )
    run.retriever.load_trainable_state(state, str(adapter_path))
    return run, metadata


def load_run(
    config_path: str | Path, adapter_path: str | Path | None = None, device: str = "auto"
) -> Retriever:
    """The model of a run, ready for inference: `load_trained` without its surroundings."""
    return load_trained(config_path, adapter_path, device)[0].retriever


def save_adapter(
    path: str | Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write trained tensors (float32, CPU) with `adapter_metadata`."""
    save_tensors(path, state, metadata)


def adapter_metadata(
    *,
    run_id: str,
    method: str,
    seed: int,
    step: int,
    selection: str,
    data_id: str,
    excluded: list[str],
) -> dict[str, str]:
    """What an adapter file says of itself; nothing in it depends on when or where it was made.

    `selection` says why it was saved: `last`, or `epoch{k}`.
    """
    return {
        "run_id": run_id,
        "method": method,
        "seed": str(seed),
        "step": str(step),
        "selection": selection,
        "data_id": data_id,
        "excluded": json.dumps(excluded),
        "versions": json.dumps(code_version()),
    }


def read_adapter(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of an adapter file.

    Raises:
        UserError: no such file, a damaged one, or one without a key of `adapter_metadata`.
    """
    state, metadata = read_tensors(path, "Remove it and run again: this run is trained anew.")
    for key in ("schema", "run_id", "method", "seed", "step", "selection", "data_id"):
        if key not in metadata:
            raise UserError(f"{path}: no {key!r} in its metadata; 'discovla train' writes adapters")
    return state, metadata
