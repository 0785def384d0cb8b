"""Which model lies in a folder: told from a few bytes of every tensor, without torch."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import BinaryIO

from discovla.errors import UserError
from discovla.storage.files import content_hash

#: Configuration, tokenizer, conversation template: read whole.
_TEXTS = (".json", ".jinja", ".txt", ".model")
#: Bytes read at the beginning and at the end of every tensor.
_SAMPLE = 64


@functools.cache
def folder_fingerprint(folder: str | Path) -> str:
    """10 hex digits for the content of a Hugging Face folder; cheap for models of any size.

    Text files count whole; of safetensors, their header and `_SAMPLE` bytes at both ends of every
    tensor, so that other weights of the same shapes show.

    Raises:
        UserError: a file is no safetensors file; names it.
    """
    found = {}
    for path in sorted(Path(folder).iterdir()):
        if path.suffix in _TEXTS:
            found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.suffix == ".safetensors":
            with path.open("rb") as file:
                found[path.name] = _weights(file, path)
    return content_hash(found)


def _weights(file: BinaryIO, path: Path) -> str:
    size = path.stat().st_size
    length = int.from_bytes(file.read(8), "little")
    try:
        if length > size:
            raise ValueError("it is cut off")
        header = file.read(length)
        tensors = json.loads(header)
        tensors.pop("__metadata__", None)
        spans = sorted(tuple(tensor["data_offsets"]) for tensor in tensors.values())
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path}: no safetensors file ({error}). Fetch the model again.") from None
    known = hashlib.sha256(header + str(size).encode())
    for begin, end in spans:
        for place in (begin, max(begin, end - _SAMPLE)):
            file.seek(8 + length + place)
            known.update(file.read(min(_SAMPLE, end - begin)))
    return known.hexdigest()
