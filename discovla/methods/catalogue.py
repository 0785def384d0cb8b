"""What `discovla methods` lists: the methods in the paper's configurations, counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from discovla.config import load_checked
from discovla.errors import UserError
from discovla.experiments import located
from discovla.models.backbone import meta_backbone
from discovla.models.retriever import build_retriever
from discovla.settings import RunSettings


@dataclass(frozen=True)
class Entry:
    """One configuration of a method."""

    name: str
    label: str
    method: str
    paper_millions: float
    """Trainable parameters as printed (Tables 1 and 5)."""
    recipe: str = "released"
    changes: Mapping[str, Any] = field(default_factory=dict)


ENTRIES = (
    Entry("zero-shot", "CLIP, pretrained", "zero_shot", 0.0),
    Entry("full", "Full fine-tuning", "full", 123.54),
    Entry("lora", "LoRA", "lora", 0.49),
    Entry("b1", "B1: + IVFusion", "discovla", 0.54, changes={"alpha": 0, "beta": 0}),
    Entry("b2", "B2: + IVFusion + PImgAlign", "discovla", 0.56, changes={"beta": 0}),
    Entry(
        "b3",
        "B3: + IVFusion + AlignDistill",
        "discovla",
        0.54,
        changes={"alpha": 0, "text_layers": 0},
    ),
    Entry("discovla", "DiscoVLA", "discovla", 0.56),
    Entry("discovla-paper", "DiscoVLA (as printed)", "discovla", 0.56, recipe="paper"),
)


def catalogue(backbone: str, folder: str | Path = "config") -> list[dict[str, Any]]:
    """Every entry at real size on a backbone, counted from the module that would be trained.

    Args:
        backbone: a name in config/backbones.yaml; no weights are needed.
        folder: the project's `config/`.

    Returns:
        One mapping per entry: name, label, method, recipe, backbone, trainable, paper_millions,
        inert (trained values without a part at inference), gaps, hooks, source.
    """
    folder = Path(folder)
    defaults, methods, backbones = (
        load_checked(folder / f"{kind}.yaml", kind) for kind in ("defaults", "methods", "backbones")
    )
    if backbone not in backbones:
        raise UserError(f"no backbone {backbone!r}; known: {', '.join(backbones)}")
    clip = meta_backbone(located(backbones[backbone]["architecture"]))
    rows = []
    for entry in ENTRIES:
        values = {
            **defaults["settings"],
            **defaults["recipes"][entry.recipe],
            **methods[entry.method]["set"],
            **entry.changes,
            "method": entry.method,
            "backbone": backbone,
        }
        settings = RunSettings.from_mapping(values, f"method {entry.name}")
        model = build_retriever(settings, clip)
        counts = {n: p.numel() for n, p in model.named_parameters() if p.requires_grad}
        rows.append(
            {
                "name": entry.name,
                "label": entry.label,
                "method": entry.method,
                "recipe": entry.recipe,
                "backbone": backbone,
                "trainable": sum(counts.values()),
                "paper_millions": entry.paper_millions,
                "inert": sum(counts[f"method.{name}"] for name in model.method.inert()),
                "gaps": model.method.gaps(),
                "hooks": model.method.hooks_used(),
                "source": model.method.source,
            }
        )
    return rows
