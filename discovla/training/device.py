"""Where the arithmetic happens, and that it happens the same way twice."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from discovla.devices import full_float32


def to_device(batch: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """A batch on the device, captions cut to the longest of the batch.

    The cut changes no number: only the end token is read, and padding comes after it.
    """
    # Cut where it arrives: a part of pinned memory that is not in one piece is copied in between.
    moved = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
    for name in ("text", "frame_text"):
        ids, mask = f"{name}_ids", f"{name}_mask"
        if ids in moved:
            longest = int(batch[mask].sum(-1).max())
            moved[ids], moved[mask] = moved[ids][..., :longest], moved[mask][..., :longest]
    return moved


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Deterministic kernels and full float32 while the block runs.

    Where CUDA has no deterministic kernel it warns and goes on; of attention, which would go on
    where it has one, see `models.fused`.
    """
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
    )
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        _set_determinism(True, True, False, False)
        with full_float32():
            yield
    finally:
        _set_determinism(*before)


def _set_determinism(deterministic: bool, warn_only: bool, benchmark: bool, fill: bool) -> None:
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
    torch.backends.cudnn.benchmark = benchmark
    torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
