"""One training and one row of a table, as resolved from config/ by `experiments`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from discovla.settings import RunSettings
from discovla.storage.files import content_hash

POSTS = ("none", "dsl", "qbnorm")
SELECTIONS = ("last", "val_best", "test_best")
"""Rules by which a checkpoint is chosen after the training; the first is the default."""
PAPER_BACKBONE = "vit-b32"
"""The backbone of the ablations and figures (Tables 5-9, Figures 6-9)."""


@dataclass(frozen=True)
class Run:
    """One training (or zero-shot evaluation) with all its settings, on one dataset."""

    dataset: str
    settings: RunSettings
    backbone: Mapping[str, Any]
    trains: bool
    frames_id: str
    captions_id: str | None

    @functools.cached_property
    def run_id(self) -> str:
        """`{method}-{backbone}-{hash}`; equal for equal numbers, wherever the row stands."""
        hashed = {
            **self.settings.hashed(),
            "weights": self.backbone["sha256"],
            "frames_id": self.frames_id,
        }
        if self.captions_id:
            hashed["captions_id"] = self.captions_id
        method = self.settings.method.replace("_", "-")
        return f"{method}-{self.settings.backbone}-{content_hash(hashed)}"

    def config(self) -> dict[str, Any]:
        """The content of the run's config.json: all that `discovla train` needs to know."""
        return {
            "schema": 1,
            "run_id": self.run_id,
            "dataset": self.dataset,
            "settings": self.settings.to_dict(),
            "backbone": dict(self.backbone),
            "trains": self.trains,
            "frames_id": self.frames_id,
            "captions_id": self.captions_id,
        }


@dataclass(frozen=True)
class Row:
    """One row of a table, or one point of a figure, for one dataset."""

    table: str
    row: str
    label: str
    dataset: str
    run: Run | None
    post: str = "none"
    selection: str = "last"
    recipe: str = "released"
    protocol: str = "unified"
    backbone: str = PAPER_BACKBONE
    params_paper: float | None = None
    paper: Mapping[str, Any] = field(default_factory=dict)
    footnotes: tuple[str, ...] = ()
    implementation: str | None = None
    """What the method's code was held against; None for a quoted row."""
    selected_on: str | None = None
    """Split on which the learning rate was chosen, or `not tuned`."""
    value: float | None = None

    @property
    def metrics_name(self) -> str:
        """Name of its metrics file; the last step is not named."""
        chosen = "" if self.selection == "last" else f".{self.selection}"
        return f"metrics.{self.post}{chosen}.json"
