"""Matrices and features on disk, read and checked; nothing here loads a pickle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from discovla.errors import UserError
from discovla.retrieval.metrics import Array
from discovla.storage.tensors import read_tensors

SIM_KEYS = ("sim", "sims", "test_sims")
BANK_KEYS = ("bank", "bank_sim", "bank_sims")
TRUTH_KEYS = ("truth",)
NORM_TOLERANCE = 1e-3
NEEDED_METADATA = ("schema", "run_id", "seed", "split", "data_id")
AGAIN = "Remove it and run again: the split is encoded anew ('discovla features')."


def load_array(path: str | Path, keys: Sequence[str], key: str | None = None) -> Array:
    """One array of a `.npy` file (memory-mapped) or of a `.npz` file.

    Args:
        path: the file.
        keys: names to look for in a `.npz` with several arrays.
        key: the name to take, whatever `keys` says.

    Raises:
        UserError: no such file, not an array file, pickled objects, absent or ambiguous key.
    """
    path = Path(path)
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return np.asarray(loaded[_choose(path, list(loaded.keys()), keys, key)])
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (ValueError, OSError, EOFError) as error:
        raise UserError(
            f"{path}: not a .npy or .npz file of plain numbers ({error}). Save it with numpy.save; "
            "files that hold Python objects are not opened."
        ) from None


def _choose(path: Path, found: list[str], keys: Sequence[str], key: str | None) -> str:
    if key is not None:
        if key not in found:
            raise UserError(f"{path}: no array {key!r}; it holds: {', '.join(found)}")
        return key
    matching = [name for name in keys if name in found]
    candidates = found if len(found) == 1 else matching
    if len(candidates) != 1:
        problem = "several could be meant" if candidates else "none of the expected names"
        raise UserError(
            f"{path}: {problem}; it holds: {', '.join(found)}; looked for: {', '.join(keys)}. "
            "Name one (--key for the similarity matrix) or save it alone."
        )
    return candidates[0]


@dataclass(frozen=True)
class Features:
    """The tensors of one features file, by name, and its metadata."""

    path: Path
    tensors: dict[str, Array]
    metadata: dict[str, str]

    def json(self, name: str, default: Any = None) -> Any:
        """A metadata value that is JSON, or `default` where it is absent."""
        text = self.metadata.get(name)
        try:
            return default if text is None else json.loads(text)
        except json.JSONDecodeError:
            raise UserError(f"{self.path}: metadata {name} is not JSON: {text!r}") from None

    @property
    def step(self) -> int | None:
        """The training step that the features come from; None for zero-shot."""
        return self.json("step")


def read_features(path: str | Path) -> Features:
    """Features of a split: `text`, `video`, `truth`, `logit_scale`."""
    features = _read(path, {"text": 2, "video": 2, "truth": 1, "logit_scale": 0})
    text, video = features.tensors["text"], features.tensors["video"]
    if text.shape[1] != video.shape[1]:
        raise UserError(f"{path}: text has {text.shape[1]} dimensions, video {video.shape[1]}")
    return features


def read_texts(path: str | Path) -> Features:
    """Features of captions alone: `text`."""
    return _read(path, {"text": 2})


def read_bank(path: str | Path, gallery: Features) -> Features:
    """Features of the training captions, made by the same run as those of `gallery`.

    Clips that were left out of the gallery do not matter to a bank, so the annotations must be the
    same, but not the data_id.
    """
    bank = read_texts(path)
    for name in ("run_id", "seed", "annotations_id"):
        ours, its = gallery.metadata.get(name), bank.metadata.get(name)
        if ours != its:
            raise UserError(
                f"{path}: {name} is {its}, but {gallery.path} has {ours}; a bank must come from "
                "the same run. Remove the older of the two files and run again."
            )
    width, expected = bank.tensors["text"].shape[1], gallery.tensors["video"].shape[1]
    if width != expected:
        raise UserError(f"{path}: {width} dimensions, but {gallery.path} has {expected}")
    return bank


def _read(path: str | Path, needed: dict[str, int]) -> Features:
    path = Path(path)
    tensors, metadata = read_tensors(path, AGAIN, framework="numpy", only=needed)
    absent = [n for n in needed if n not in tensors]
    absent += [n for n in NEEDED_METADATA if n not in metadata]
    if absent:
        raise UserError(f"{path}: not a features file: without {', '.join(absent)}")
    for name, dimensions in needed.items():
        if tensors[name].ndim != dimensions:
            raise UserError(f"{path}: {name} has shape {tensors[name].shape}")
    for name in ("text", "video"):
        if name in tensors:
            _check_unit_length(tensors[name], f"{path}: {name}")
    return Features(path, tensors, metadata)


def _check_unit_length(features: Array, name: str) -> None:
    if 0 in features.shape:
        raise UserError(f"{name}: shape {features.shape}; at least one feature is expected")
    length = np.sqrt(np.einsum("nd,nd->n", features, features))
    bad = ~(np.abs(length - 1) < NORM_TOLERANCE)
    if bad.any():
        first = int(np.argmax(bad))
        raise UserError(
            f"{name}: row {first} has length {length[first]:g}; all rows must have length 1 "
            f"({int(bad.sum())} of {len(bad)} have not)"
        )
