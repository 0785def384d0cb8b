"""Files of CLIP weights: found or fetched, digest checked, read without pickles, strictly fit."""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from discovla.errors import UserError
from discovla.storage.files import sha256_file

_ARCHIVE_EXTRAS = ("input_resolution", "context_length", "vocab_size")
"""Numbers that OpenAI's archives carry among their tensors."""
_SHOWN = 5
"""How many names an error message lists."""


def find_weights(spec: Mapping[str, Any], where: str) -> Path | None:
    """The weights file of a backbone's entry, its digest checked; None for random weights.

    Raises:
        UserError: no such file, a wrong digest, an unknown tag, or a tag that cannot be fetched.
    """
    weights, expected = spec["weights"], spec.get("sha256")
    if weights is None:
        return None
    tags = _known_tags(spec["architecture"])
    if weights in tags and not Path(weights).is_file():
        return _fetch(spec["architecture"], weights, where)
    path = Path(weights)
    if not path.is_file():
        known = f"; tags of {spec['architecture']}: {', '.join(tags)}" if tags else ""
        raise UserError(f"{where}.weights: {path}: no such file{known}")
    if expected is not None and (found := sha256_file(path)) != expected:
        raise UserError(
            f"{path} is not the file expected by {where}.sha256:\n"
            f"  expected {expected}\n  found    {found}\n"
            "Fetch the file again, or, if you mean to use other weights, add an entry with "
            "their digest: it is part of every run id."
        )
    return path


def _known_tags(architecture: str) -> list[str]:
    import open_clip

    return list(open_clip.list_pretrained_tags_by_model(architecture))


def _fetch(architecture: str, tag: str, where: str) -> Path:
    """open_clip's file of a tag, from its cache or the Hugging Face hub."""
    import open_clip

    source = open_clip.get_pretrained_cfg(architecture, tag)
    try:
        return Path(open_clip.download_pretrained(source))
    except Exception as error:  # the hub raises many kinds, all of them mean: no file
        offline = os.environ.get("HF_HUB_OFFLINE", "0")
        raise UserError(
            f"{where}.weights: tag {tag!r} of {architecture} (hub repository "
            f"{source.get('hf_hub', '?').rstrip('/')}) is not in the local cache and cannot be "
            f"fetched: {_first_line(error)}\n"
            f"HF_HUB_OFFLINE is {offline} (1 = never ask the network). Either run once with a "
            f"network, or bring the file ({Path(source.get('url') or 'safetensors').name}) and "
            f"set weights: in config/config.yaml to its path."
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def read_state_dict(path: Path, where: str) -> dict[str, Tensor]:
    """Tensors by name, as float32, of a TorchScript archive or a safetensors file.

    Raises:
        UserError: the file is neither of the two, or damaged.
    """
    try:
        names = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else None
        if names is None:
            state = load_file(path)
        elif any("/code/" in name for name in names):
            state = _read_archive(path)
        else:
            raise UserError(
                f"{where}.weights: {path} is a pickle of PyTorch, which can run code when read "
                "and is refused; give OpenAI's TorchScript archive or a safetensors file"
            )
    except (SafetensorError, RuntimeError, zipfile.BadZipFile, OSError) as error:
        raise UserError(
            f"{where}.weights: {path} cannot be read ({_first_line(error)}); OpenAI's TorchScript "
            "archive or a safetensors file is expected. Fetch it again if it is one."
        ) from None
    return {n: t.float() for n, t in state.items() if n not in _ARCHIVE_EXTRAS}


def _read_archive(path: Path) -> dict[str, Tensor]:
    with warnings.catch_warnings():
        # torch has deprecated TorchScript, but OpenAI ships its weights in no other form.
        warnings.simplefilter("ignore", FutureWarning)
        return torch.jit.load(path, map_location="cpu").state_dict()


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], what: str, where: str) -> None:
    """Copy `state` into `module`; every name and every shape must fit.

    Raises:
        UserError: names the file `what`, the place `where` to mend it and the first misfits.
    """
    own = module.state_dict()
    misfits = {
        "missing": sorted(own.keys() - state.keys()),
        "unknown": sorted(state.keys() - own.keys()),
        "of another shape": [
            f"{n} {tuple(state[n].shape)} for {tuple(own[n].shape)}"
            for n in own
            if n in state and state[n].shape != own[n].shape
        ],
    }
    if any(misfits.values()):
        found = "; ".join(
            f"{len(names)} {kind}: {', '.join(names[:_SHOWN])}{', …' * (len(names) > _SHOWN)}"
            for kind, names in misfits.items()
            if names
        )
        raise UserError(f"{what} does not fit the model of {where}: {found}")
    module.load_state_dict(dict(state))
