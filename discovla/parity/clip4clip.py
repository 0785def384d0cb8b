"""Full fine-tuning against ArrowLuo/CLIP4Clip (meanP): features, gradients, six optimiser steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from discovla import losses
from discovla.methods.full import FullFineTuning
from discovla.models.hooks import VISION, Batch, State
from discovla.models.retriever import Retriever
from discovla.parity.bertadam import PUBLISHED, replay, trace_errors
from discovla.parity.case import Case, errors
from discovla.settings import RunSettings
from discovla.training.checkpoint import trained_parameters

_FUSED, _PARTS = "attn.in_proj_bias", ("q", "k", "v")


class Recorded(FullFineTuning):
    """Full fine-tuning that notes the intermediate results a golden case holds."""

    seen: dict[str, Tensor]

    def post_layer(self, i: int, state: State) -> None:
        """Note the lead token after every block."""
        name = f"vision_block{i}_cls" if state.tower == VISION else f"text_block{i}_eot"
        self.seen[f"out/{name}"] = state.x[torch.arange(len(state.x)), state.lead()]


def compare(
    case: Case, method_class: type[Recorded] = Recorded, **changes: Any
) -> dict[str, float]:
    """Errors of a case of CLIP4Clip: outputs, gradients, trained tensors after optimiser steps.

    Args:
        case: the golden case.
        method_class: the method, perhaps one that is wrong on purpose.
        changes: of the settings.
    """
    case.require("trace")
    settings = case.settings("full", {**_values(case), **changes})
    backbone = case.backbone({n.removeprefix("clip."): t for n, t in case.weights.items()})
    method = method_class(backbone.dims, settings)
    model = Retriever(backbone, method)
    found = {**_outputs(model, method, case.batch), **_gradients(model, case.batch)}
    wanted = split_biases(case.wanted)
    agreed = errors(wanted, split_biases(found), key_biases(wanted))
    return {**agreed, **_trace(case, model, settings)}


def _values(case: Case) -> dict[str, Any]:
    trace = case["trace"]
    return {
        **PUBLISHED,
        "lr": trace["lr"] * trace["coef_lr"],
        "weight_decay": trace["groups"][0]["weight_decay"],
        "warmup": trace["warmup_proportion"],
        "beta1": 0.9,
        "beta2": 0.98,
        "adam_eps": 1e-6,
    }


@torch.no_grad()
def _outputs(model: Retriever, method: Recorded, batch: Batch) -> dict[str, Tensor]:
    method.seen = {}
    out = model(batch)
    sim = losses.cosine(out.text, out.video)
    evaluated = losses.cosine(
        model.encode_text(batch["text_ids"], batch["text_mask"]),
        model.encode_video(batch["video"], batch["video_mask"]).pooled,
    )
    return {
        **method.seen,
        "out/text_feat": out.text,
        "out/frame_feat": out.frames,
        "out/video_feat": out.video,
        "out/sim": sim,
        "out/logits": sim * out.logit_scale,
        "out/eval_logits": evaluated * out.logit_scale,
        "out/loss": model.loss_of(out, batch)["loss"],
    }


def _gradients(model: Retriever, batch: Batch) -> dict[str, Tensor]:
    parameters = trained_parameters(model)
    gradients = torch.autograd.grad(model.loss(batch)["loss"], list(parameters.values()))
    return {f"grad/{n}": g for n, g in zip(parameters, gradients, strict=True)}


def _trace(case: Case, model: Retriever, settings: RunSettings) -> dict[str, float]:
    wanted = split_biases(case.tensors("trace"))
    start = split_biases(model.trainable_state())
    steps = replay(model, case.batch, settings, case["trace"]["t_total"])
    return trace_errors(wanted, start, map(split_biases, steps), key_biases(wanted))


def key_biases(names: Iterable[str]) -> set[str]:
    """Biases of keys: softmax does not see them, so that their gradients are rounding noise."""
    return {name for name in names if name.endswith("attn.k_proj.bias")}


def split_biases(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with each fused bias of queries, keys and values as three, under their own names."""
    parts: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(_FUSED):
            stem = name.removesuffix(_FUSED)
            for part, third in zip(_PARTS, tensor.chunk(3), strict=True):
                parts[f"{stem}attn.{part}_proj.bias"] = third
        else:
            parts[name] = tensor
    return parts
