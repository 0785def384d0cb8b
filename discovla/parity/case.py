"""A golden case on disk, what is common to all of them, and how far numbers may be apart.

A case is `NAME.json` (sizes and settings) with, beside it, `NAME.io.safetensors` (`in/*`, `out/*`
and perhaps `grad*/*`), files of parameters under their official names, and perhaps further
gradients and traces of an optimiser.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from discovla.errors import UserError
from discovla.methods.options import read_settings
from discovla.models.backbone import Backbone, build_backbone
from discovla.models.hooks import Batch
from discovla.models.weights import load_strictly
from discovla.settings import RunSettings
from discovla.storage.files import read_json

HEAD_WIDTH = 64
OUTPUT_LIMIT, GRADIENT_LIMIT, TRACE_LIMIT = 1e-4, 1e-3, 1e-3
"""Largest allowed relative errors; float32 noise reaches 2e-5 and 8e-5, a wrong formula 4e-2."""
NOISE_LIMIT = 1e-5
"""Largest allowed absolute error of a gradient that is zero in theory: an attention's key bias."""
UPDATE_LIMIT = 1e-6
"""Largest allowed relative error of a tensor that an optimiser changes by recorded gradients."""
_UPDATED = re.compile(r"step\d+/p\d+")
_KEYS = {"vw", "vl", "patch", "res", "tw", "tl", "embed", "vocab", "ctx", "Fr", "B", "L"}


@dataclass(frozen=True)
class Case:
    """One golden case with every file beside it."""

    path: Path
    values: Mapping[str, Any]
    """The JSON."""

    @classmethod
    def read(cls, path: str | Path) -> Case:
        """Read the JSON; raise `UserError` if it is absent or no mapping."""
        values = read_json(path)
        if not isinstance(values, dict):
            raise UserError(f"{path}: not a golden case: no mapping")
        return cls(Path(path), values)

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def require(self, *more: str) -> None:
        """Refuse a case without sizes, or without one of the keys `more`."""
        if missing := sorted({*_KEYS, *more} - self.values.keys()):
            raise UserError(f"{self.path}: not a golden case: no {missing}")

    def tensors(self, *parts: str) -> dict[str, Tensor]:
        """All tensors of `NAME.{part}*.safetensors`, as stored; `UserError` if there are none.

        The part `` stands for every file, `NAME.safetensors` too.
        """
        files = [
            file
            for part in parts
            for file in sorted(self.path.parent.glob(f"{self.path.stem}.{part}*safetensors"))
        ]
        if not files:
            wanted = " or ".join(f"{self.path.stem}.{part}*.safetensors" for part in parts)
            raise UserError(f"{self.path}: no {wanted} beside it")
        try:
            return {name: tensor for file in files for name, tensor in load_file(file).items()}
        except (OSError, SafetensorError) as error:
            raise UserError(f"{self.path}: files beside it cannot be read: {error}") from None

    @cached_property
    def golden(self) -> dict[str, Tensor]:
        """Inputs and results, and gradients where they have files of their own."""
        grads = self.tensors("grads") if self._has("grads") else {}
        return {**self.tensors("io"), **grads}

    def _has(self, part: str) -> bool:
        return any(self.path.parent.glob(f"{self.path.stem}.{part}*.safetensors"))

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """All parameters under their official names, in float32."""
        parts = [p for p in ("weights", "clip", "adapter", "prompts") if self._has(p)]
        return {n: t.float() for n, t in self.tensors(*(parts or ["weights"])).items()}

    @property
    def batch(self) -> Batch:
        """The inputs by the names of a training batch."""
        found = {n.removeprefix("in/"): t for n, t in self.golden.items() if n.startswith("in/")}
        batch = {n: found[n] for n in ("text_ids", "text_mask", "video")}
        frames = torch.ones(batch["video"].shape[:2], dtype=torch.long)
        return {**batch, "video_mask": found.get("video_mask", frames)}

    @property
    def wanted(self) -> dict[str, Tensor]:
        """Results and gradients to be met."""
        return {n: t for n, t in self.golden.items() if n.startswith(("out/", "grad"))}

    def backbone(self, frozen: Mapping[str, Tensor]) -> Backbone:
        """The case's CLIP with the tensors `frozen` (OpenAI's names), loaded strictly."""
        config = {
            "embed_dim": self["embed"],
            "quick_gelu": True,
            "vision_cfg": {
                "layers": self["vl"],
                "width": self["vw"],
                "head_width": HEAD_WIDTH,
                "patch_size": self["patch"],
                "image_size": self["res"],
            },
            "text_cfg": {
                "context_length": self["ctx"],
                "vocab_size": self["vocab"],
                "width": self["tw"],
                "heads": self["tw"] // HEAD_WIDTH,
                "layers": self["tl"],
            },
        }
        backbone = build_backbone(config, name=str(self.path))
        where = str(self.path)
        load_strictly(backbone.clip, dict(frozen), f"{where} (weights of CLIP)", where)
        return backbone

    def settings(self, method: str, values: Mapping[str, Any]) -> RunSettings:
        """Settings with the case's sizes and `values`.

        Where nothing is trained, the optimiser's settings only have to be there; where there is no
        model, its sizes.
        """
        defaults: dict[str, Any] = {
            "method": method,
            "backbone": "golden",
            "frames": self.values.get("Fr", 1),
            "words": self.values.get("L", 3),
            "batch_size": self.values.get("B", 2),
            "captioner": "golden",
            **dict.fromkeys(("lora_rank", "adapter_rank", "epochs", "lr", "adam_eps"), 1),
            **dict.fromkeys(("beta1", "beta2", "sampling_fps"), 1),
            **dict.fromkeys(("vision_layers", "text_layers", "alpha", "beta"), 0),
            **dict.fromkeys(("weight_decay", "warmup", "clip_norm"), 0),
        }
        return read_settings({**defaults, **values}, "golden case")


def errors(
    wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], noise: Collection[str] = ()
) -> dict[str, float]:
    """Relative errors of every wanted tensor, by its name.

    The error is the largest absolute difference over the largest absolute golden value (absolute
    where that is zero), infinite if a value is not finite. A gradient that is not found counts as
    zero. Tensors named in `noise` are zero in theory: their error is absolute, and scaled so that
    `NOISE_LIMIT` meets the limit of gradients.

    Raises:
        UserError: an output that nothing was computed for.
    """
    if unknown := sorted(n for n in wanted if n.startswith("out/") and n not in found):
        raise UserError(f"golden case: nothing to compare with {', '.join(unknown[:5])}")
    result = {}
    for name, reference in wanted.items():
        mine = found.get(name, torch.zeros_like(reference))
        if name in noise:
            largest = float((mine - reference).abs().max())
            result[name] = largest * GRADIENT_LIMIT / NOISE_LIMIT
        else:
            result[name] = relative_error(mine, reference)
    return result


def relative_error(found: Tensor, reference: Tensor) -> float:
    """Largest absolute difference over the largest absolute value of `reference`."""
    if found.shape != reference.shape or not found.isfinite().all():
        return float("inf")
    scale = float(reference.abs().max()) or 1.0
    return float((found - reference).abs().max()) / scale


def limit_of(name: str) -> float:
    """Largest allowed relative error of a golden tensor."""
    if name.startswith("step"):
        return UPDATE_LIMIT if _UPDATED.fullmatch(name) else TRACE_LIMIT
    return GRADIENT_LIMIT if name.startswith("grad") else OUTPUT_LIMIT


def within_limits(found: Mapping[str, float]) -> bool:
    """Whether every error is within the limit of its kind."""
    return all(error <= limit_of(name) for name, error in found.items())
