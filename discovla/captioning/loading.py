"""Loading a LLaVA-NeXT model so that what cannot work fails early and clearly."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, LlavaNextForConditionalGeneration, LlavaNextProcessor

from discovla.errors import UserError

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_NEXT = (
    "Download it with 'hf download {id} --local-dir models/{name}' and set "
    "captioner_path: {{NAME: models/{name}}} in config/config.yaml, NAME being its entry in "
    "config/captioners.yaml."
)


class Loaded(NamedTuple):
    """A model, its processor, and the commit it came from (None for a folder)."""

    model: Any
    processor: Any
    revision: str | None


def load_llava_next(model: str, revision: str | None, dtype: torch.dtype) -> Loaded:
    """Load a LLaVA-NeXT model and its processor from a folder or from Hugging Face.

    Only safetensors are read, and no code of a checkpoint is run.

    Raises:
        UserError: absent, damaged, incomplete or another kind of model; says what to do next.
    """
    folder = _check_folder(model)
    options: dict[str, Any] = {"revision": None if folder else revision}
    options["local_files_only"] = folder
    try:
        config = AutoConfig.from_pretrained(model, **options)
        if config.model_type != "llava_next":
            raise UserError(
                f"{model}: a model of type {config.model_type!r}; the captioner must be a "
                "LLaVA-NeXT in the format of transformers (model_type llava_next), such as "
                "llava-hf/llava-v1.6-mistral-7b-hf"
            )
        processor = LlavaNextProcessor.from_pretrained(model, **options)
        network, report = LlavaNextForConditionalGeneration.from_pretrained(
            model, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
        )
    except (OSError, ValueError, SafetensorError, KeyError) as error:
        raise UserError(_explain(model, folder, error)) from None
    absent = sorted([*report["missing_keys"], *(str(key) for key in report["mismatched_keys"])])
    if absent:
        raise UserError(
            f"{model}: {len(absent)} tensors are missing or of another shape, the first is "
            f"{absent[0]}. Fetch the model again."
        )
    if not getattr(processor, "chat_template", None):
        raise UserError(f"{model}: no conversation template (chat_template.jinja or .json)")
    return Loaded(network, processor, getattr(config, "_commit_hash", None))


def _check_folder(model: str) -> bool:
    """Whether `model` is a folder here; `UserError` if it is no Hugging Face id either."""
    path = Path(model)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(f"{model}: no config.json in this folder; it holds no model")
        return True
    if path.exists() or not _HUB_ID.fullmatch(model):
        raise UserError(
            f"captioner {model!r}: no such folder, and not a Hugging Face id (owner/name). Check "
            "captioner_path: in config/config.yaml and model: in config/captioners.yaml."
        )
    return False


def _explain(model: str, folder: bool, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if folder:
        return f"{model}: this captioner cannot be loaded ({reason}). Fetch the model again."
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}
    where = (
        "HF_HUB_OFFLINE is set, so only models that were fetched before can be used. "
        if offline
        else ""
    )
    following = _NEXT.format(id=model, name=model.split("/")[1])
    return f"captioner {model}: it is not on this machine ({reason}). {where}{following}"
