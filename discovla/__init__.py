"""DiscoVLA reproduced: parameter-efficient text-video retrieval."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from discovla.deploy.inference import Model


def load(folder: str | Path, *, device: str = "auto", weights: str | Path | None = None) -> Model:
    """A trained run, ready to encode captions and videos; see `inference.load`."""
    from discovla.deploy.inference import load as load_model  # torch only where it is needed

    return load_model(folder, device=device, weights=weights)
