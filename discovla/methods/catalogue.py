"""What `discovla methods` lists: the rows of the tables as models, counted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from discovla.config import located
from discovla.errors import UserError
from discovla.experiments import Experiments
from discovla.models.backbone import meta_backbone
from discovla.models.retriever import build_retriever

_TABLES = ("table5", "table1", "variants")
_DATASET = "msrvtt"
_BACKBONE = re.compile(r"-b(32|16)$")


def catalogue(backbone: str, folder: str | Path = "config") -> list[dict[str, Any]]:
    """Every model of Tables 1 and 5 and of our variants, at real size on a backbone.

    Args:
        backbone: a name in config/backbones.yaml; no weights are needed.
        folder: the project's `config/`.

    Returns:
        One mapping per model: name, label, method, recipe, backbone, trainable (values, counted as
        its authors do), uncounted (trained values that they leave out), paper_millions (as
        printed, or None), inert (trained values without a part at inference), gaps (Figure 1),
        hooks, implementation, source.
    """
    experiments = Experiments.load(folder=folder)
    if backbone not in experiments.backbones:
        raise UserError(f"no backbone {backbone!r}; known: {', '.join(experiments.backbones)}")
    clip = meta_backbone(located(experiments.backbones[backbone]["architecture"]))
    return [_line(experiments, backbone, clip, n, s) for n, s in _models(experiments, backbone)]


def _models(experiments: Experiments, backbone: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name and row of every model; of rows that differ in the backbone, the one asked for."""
    found: dict[str, Mapping[str, Any]] = {}
    for table in _TABLES:
        for spec in experiments.tables[table]["rows"]:
            if "method" not in spec or spec.get("protocol", "unified") != "unified":
                continue
            if _DATASET not in spec.get("datasets", [_DATASET]):
                continue
            name = _BACKBONE.sub("", spec["row"])
            if name not in found or spec.get("backbone") == backbone:
                found[name] = spec
    return iter(found.items())


def _line(
    experiments: Experiments, backbone: str, clip: Any, name: str, spec: Mapping[str, Any]
) -> dict[str, Any]:
    method, recipe = spec["method"], spec.get("recipe", "released")
    run = experiments.resolve(_DATASET, method, backbone, spec.get("set", {}), recipe, name)
    model = build_retriever(run.settings, clip)
    counts = {n: p.numel() for n, p in model.named_parameters() if p.requires_grad}
    inert, uncounted = (
        sum(counts[f"method.{n}"] for n in names)
        for names in (model.method.inert(), model.method.uncounted())
    )
    return {
        "name": name,
        "label": spec["label"],
        "method": method,
        "recipe": recipe,
        "backbone": backbone,
        "trainable": sum(counts.values()) - uncounted,
        "uncounted": uncounted,
        "paper_millions": spec.get("params"),
        "inert": inert,
        "gaps": model.method.gaps(),
        "hooks": model.method.hooks_used(),
        "implementation": experiments.methods[method]["implementation"],
        "source": model.method.source,
    }
