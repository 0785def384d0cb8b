"""Safetensors files of this project: a version, a checksum, and errors that name the file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from discovla.errors import UserError
from discovla.storage.files import atomic_path
from discovla.storage.place import check_place
from discovla.storage.seal import KEY, OPEN, check_seal, seal

VERSION = "2"
"""Files of version 1 have no checksum; everything else is the same."""
_READABLE = ("1", VERSION)


def save_tensors(path: str | Path, tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Write torch tensors and metadata, with version and checksum, complete or not at all."""
    from safetensors.torch import save_file

    described = {**metadata, "schema": VERSION, **OPEN}
    with atomic_path(path) as temporary:
        save_file(dict(tensors), temporary, metadata=described)
        seal(temporary)


def read_tensors(
    path: str | Path,
    advice: str,
    *,
    framework: str = "pt",
    only: Collection[str] | None = None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Tensors on the CPU, and metadata, of a file that `save_tensors` wrote.

    Args:
        path: the file; all of it is held against its checksum.
        advice: what to do; ends the text of an error.
        framework: `pt` for torch, `numpy`.
        only: names of the tensors to read, where they are there; None for all.

    Raises:
        UserError: the file is absent, damaged, of another version or of another place.
    """
    path = Path(path)
    try:
        sealed = check_seal(path, advice)
        with safe_open(path, framework=framework) as file:
            names = [name for name in file.keys() if only is None or name in only]  # noqa: SIM118
            tensors = {name: file.get_tensor(name) for name in names}
            metadata = dict(file.metadata() or {})
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. {advice}") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: damaged or no safetensors file ({error}). {advice}") from None
    version = metadata.get("schema", "1")
    if version not in _READABLE:
        raise UserError(
            f"{path}: its format is version {version}, {VERSION} is read here. {advice}"
        )
    if version != "1" and not sealed:
        raise UserError(f"{path}: damaged: it has lost its checksum. {advice}")
    metadata.pop(KEY, None)
    check_place(path, metadata, advice)
    return tensors, metadata
