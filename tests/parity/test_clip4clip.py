"""Full fine-tuning against CLIP4Clip's code, and that wrong variants are noticed."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path

import pytest
import torch
from torch import Tensor

from discovla import parity
from discovla.models.backbone import meta_backbone
from discovla.models.hooks import Batch, Outputs
from discovla.models.retriever import MAX_LOGIT_SCALE, build_retriever
from discovla.parity.case import Case
from discovla.parity.clip4clip import Recorded, compare, split_biases
from discovla.training.bertadam import half_precision_names
from discovla.training.checkpoint import trained_parameters
from discovla.training.optim import optimiser_of
from discovla.training.trainer import improve
from tests.models import tiny

CASE = "golden_methods/clip4clip_public.json"
Shared = Callable[[str], Path]


def beyond(errors: dict[str, float]) -> set[str]:
    """Kinds of tensors of which one is beyond its limit."""
    return {n.split("/")[0] for n, e in errors.items() if not e <= parity.limit_of(n)}


def golden_names(case: Case) -> set[str]:
    """Names of everything to be compared."""
    recorded = {**case.wanted, **case.tensors("trace")}
    return set(split_biases(recorded))


def test_outputs_gradients_and_six_steps_agree(shared: Shared) -> None:
    path = shared(CASE)
    errors = parity.compare(path)
    assert set(errors) == golden_names(Case.read(path))
    assert {name.split("/")[0] for name in errors} == {"out", "grad", "step2", "step4", "step6"}
    assert not beyond(errors), {n: e for n, e in errors.items() if e > parity.limit_of(n)}


def test_what_is_trained_and_what_decays(shared: Shared) -> None:
    description = json.loads(shared(CASE).read_text())
    case = Case.read(shared(CASE))
    settings = case.settings("full", {"decay": "weights", "optimiser": "bertadam"})
    backbone = case.backbone({n.removeprefix("clip."): t for n, t in case.weights.items()})
    model = build_retriever(settings, backbone)
    parameters = trained_parameters(model)
    assert set(parameters) == set(description["trainable_names"])
    assert sum(p.numel() for p in parameters.values()) == description["trainable"]
    optimiser = optimiser_of(model, parameters, settings)
    names = {id(p): n for n, p in parameters.items()}
    found = {frozenset(names[id(p)] for p in g["params"]) for g in optimiser.param_groups}
    groups = description["trace"]["groups"]
    assert found == {frozenset(g["tensors"]) for g in groups if g["tensors"]}


class Unmasked(Recorded):
    """Counts frames that should not count."""

    def pool(self, frames: Tensor, mask: Tensor | None) -> Tensor:
        return super().pool(frames, torch.ones(frames.shape[:2]))


class NotNormalised(Recorded):
    """Averages frames as they are."""

    def pool(self, frames: Tensor, mask: Tensor | None) -> Tensor:
        assert mask is not None
        return (frames * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


class OneDirection(Recorded):
    """From texts to videos only."""

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        logits = (
            torch.nn.functional.normalize(out.text, dim=-1)
            @ torch.nn.functional.normalize(out.video, dim=-1).T
        )
        loss = torch.nn.functional.cross_entropy(
            logits * out.logit_scale, torch.arange(len(logits))
        )
        return {"loss": loss}


class FrozenNorms(Recorded):
    """Leaves the last norm of the vision tower out."""

    def trainable(self, clip: torch.nn.Module) -> dict[str, float]:
        return {n: f for n, f in super().trainable(clip).items() if "ln_post" not in n}


@pytest.mark.parametrize(
    ("method", "noticed"),
    [
        (Unmasked, {"out", "grad"}),
        (NotNormalised, {"out", "grad"}),
        (OneDirection, {"out", "grad"}),
        (FrozenNorms, {"grad", "step6"}),
    ],
)
def test_wrong_models_are_noticed(
    shared: Shared, method: type[Recorded], noticed: Collection[str]
) -> None:
    assert beyond(compare(Case.read(shared(CASE)), method)) >= noticed


@pytest.mark.parametrize(
    "change",
    [
        {"optimiser": "adamw"},
        {"cosine": "after_warmup"},
        {"decay": "all"},
        {"clip_norm": 1e9},
        {"storage": "fp16"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_wrong_optimisation_is_noticed(shared: Shared, change: dict[str, object]) -> None:
    errors = parity.compare(shared(CASE), **change)
    assert "step6" in beyond(errors)
    assert not beyond(errors) & {"out", "grad"}


@pytest.mark.parametrize("architecture", ["ViT-B-32-quickgelu", "ViT-B-16-quickgelu"])
def test_sizes_of_the_real_model(architecture: str) -> None:
    settings = tiny.settings("full", vision_layers=0, text_layers=0, words=32)
    model = build_retriever(settings, meta_backbone(architecture))
    parameters = trained_parameters(model)
    half = half_precision_names(model)
    assert len(parameters) == 295
    assert sum(p.numel() for p in parameters.values()) == 123_540_993
    assert sum(p.numel() for n, p in parameters.items() if n not in half) == 64_001


def test_the_temperature_stops_at_100(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"optimiser": "bertadam", "lr": 0.5, "weight_decay": 0.0}
    settings, model = tiny.settings("full", **values), tiny.model("full", **values)
    with torch.no_grad():
        model.clip.logit_scale.fill_(MAX_LOGIT_SCALE - 0.1)
    monkeypatch.setattr(model, "loss_of", lambda out, batch: {"loss": -out.logit_scale})
    parameters = trained_parameters(model)
    optimiser = optimiser_of(model, parameters, settings)
    for group in optimiser.param_groups:
        group["lr"] = group["peak"]
    improve(model, parameters.values(), optimiser, tiny.batch(), settings)
    assert model.clip.logit_scale.item() == pytest.approx(MAX_LOGIT_SCALE, abs=1e-6)
