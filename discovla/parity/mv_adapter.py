"""MV-Adapter against zhangbw17/MV-Adapter (tied on either side), and its six optimiser steps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from discovla import losses
from discovla.methods.mv_adapter import SCALE, MVAdapter
from discovla.models.hooks import TEXT, VISION, State
from discovla.models.retriever import Retriever
from discovla.parity.bertadam import PUBLISHED, replay, trace_errors
from discovla.parity.case import Case, errors
from discovla.parity.clip4clip import key_biases, split_biases
from discovla.settings import RunSettings
from discovla.training.checkpoint import trained_parameters

_BLOCK = re.compile(r"clip\.(visual\.)?transformer\.resblocks\.(\d+)\.(.+)")
_ADAPTER = {
    "positional_embedding": "position.weight",
    "cc": "token.weight",
    "ln_pre.": "ln.",
    "conv_rf_c.g.": "token_map.",
    "conv_rf_c.a.": "squeeze.",
    "conv_rf_c.b.": "excite.",
    "md_proj.": "tie.",
    "block.attn.in_proj_": "block.qkv.",
    "block.attn.out_proj.": "block.out.",
    "block.mlp.c_fc.": "block.fc.",
    "block.mlp.c_proj.": "block.proj.",
}
_CLIP = {"attn.ln.": "ln_1.", "mlp.ln.": "ln_2."}
_THIRD = re.compile(r"attn\.([qkv])_proj\.bias")


class Recorded(MVAdapter):
    """MV-Adapter that notes what its parts compute."""

    seen: dict[str, Tensor]

    def adapted(self, i: int, state: State, y: Tensor) -> Tensor:
        """Note what is added."""
        found = super().adapted(i, state, y)
        self.seen[f"out/{state.tower}_adapter{i}"] = SCALE * found
        return found

    def post_layer(self, i: int, state: State) -> None:
        """Note class and end tokens."""
        lead = state.x[torch.arange(len(state.x)), state.lead()]
        kind = "cls" if state.tower == VISION else "eot"
        self.seen[f"out/{state.tower}_block{i}_{kind}"] = lead


def compare(case: Case, **changes: Any) -> dict[str, float]:
    """Errors of features, adapters, calibration, scores, loss, gradients and optimiser steps.

    Args:
        case: the golden case; only some have recorded steps.
        changes: of the settings, or under `kind` a class in place of `Recorded`.
    """
    case.require("mid", "n_head", "pos", "last", "factor_dim", "trace")
    kind = changes.pop("kind", Recorded)
    own = {n: t for n, t in case.weights.items() if "adapter" in n or "prompt" in n}
    frozen = {n.removeprefix("clip."): t for n, t in case.weights.items() if n not in own}
    backbone = case.backbone(frozen)
    values = {**_options(case), **_optimisation(case), **changes}
    settings = case.settings("mv_adapter", values)
    method = kind(backbone.dims, settings)
    model = Retriever(backbone, method)
    state = {_our_name(n)[0]: t for n, t in own.items()}
    biases = {n: t for n, t in model.trainable_state().items() if n.startswith("clip.")}
    model.load_trainable_state({**state, **biases}, str(case.path))
    outputs = {n: t.detach() for n, t in _outputs(case, model, method).items()}
    gradients = _gradients(model, case)
    wanted = split_biases(case.wanted)
    agreed = errors(wanted, {**outputs, **split_biases(gradients)}, key_biases(wanted))
    return {**agreed, **_trace(case, model, settings)} if case["trace"] else agreed


def _options(case: Case) -> dict[str, Any]:
    return {
        "bottleneck": case["mid"],
        "adapter_heads": case["n_head"],
        "tie": {"down in": "input", "down out": "output"}[case["pos"]],
        "tied_layers": case["last"],
        "tie_width": case["factor_dim"],
        "clip_bias_lr": 0.02,
    }


def _optimisation(case: Case) -> dict[str, Any]:
    """Settings of the recorded steps; they share warm-up and moments with CLIP4Clip's."""
    if not case["trace"]:
        return {}
    adapters, _, clip_biases, _ = case["trace"]["groups"]
    return {
        **PUBLISHED,
        "lr": adapters["lr"],
        "clip_bias_lr": clip_biases["lr"] / adapters["lr"],
        "weight_decay": adapters["weight_decay"],
        "warmup": 0.1,
        "beta1": 0.9,
        "beta2": 0.98,
        "adam_eps": 1e-6,
    }


def _outputs(case: Case, model: Retriever, method: Recorded) -> dict[str, Tensor]:
    """Everything of `out/`."""
    batch = case.batch
    method.seen = {}
    alphas: list[Tensor] = []
    adapters: Any = method.adapters
    hooks = [
        adapter.excite.register_forward_hook(lambda _m, _i, y: alphas.append(1 + y))
        for adapter in adapters[VISION]
    ]
    text = model.encode_text(batch["text_ids"], batch["text_mask"])
    frames, pooled = model.encode_video(batch["video"], batch["video_mask"])
    for hook in hooks:
        hook.remove()
    similarity = losses.cosine(text, pooled)
    return {
        **method.seen,
        **{f"out/vision_alpha{i}": alpha for i, alpha in enumerate(alphas)},
        "out/text_feat": text,
        "out/frame_feat": frames,
        "out/video_feat": pooled,
        "out/sim": similarity,
        "out/logits": similarity * model.logit_scale,
        "out/eval_logits": similarity * model.logit_scale,
        "out/loss": losses.contrastive_loss(similarity, model.logit_scale),
    }


def _gradients(model: Retriever, case: Case) -> dict[str, Tensor]:
    parameters = trained_parameters(model)
    loss = model.loss(case.batch)["loss"]
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    gradients = {n: g for n, g in zip(parameters, found, strict=True) if g is not None}
    names = [n.removeprefix("grad/") for n in case.wanted if n.startswith("grad/")]
    official = _official(gradients, names)
    return {f"grad/{name}": gradient for name, gradient in official.items()}


def _trace(case: Case, model: Retriever, settings: RunSettings) -> dict[str, float]:
    recorded = case.tensors("trace")
    names = {name.partition("/")[2] for name in recorded}
    wanted = split_biases(recorded)
    states = (
        split_biases(_official(state, names))
        for state in replay(model, case.batch, settings, case["trace"]["t_total"])
    )
    start = split_biases(_official(model.trainable_state(), names))
    return trace_errors(wanted, start, states, key_biases(wanted))


def _official(ours: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Tensors of our model under their official names, as far as ours has them."""
    found = {}
    for official in names:
        name, third = _our_name(official)
        if name in ours:
            tensor = ours[name]
            found[official] = tensor if third is None else tensor.chunk(3)["qkv".index(third)]
    return found


def _our_name(official: str) -> tuple[str, str | None]:
    """Name in our model, and which third of it where theirs is split into q, k and v."""
    if official.startswith("clip.prompt."):
        return f"method.shared.{official.removeprefix('clip.prompt.')}.weight", None
    match = _BLOCK.fullmatch(official)
    if match is None:
        return official, None
    tower, i, rest = (VISION if match[1] else TEXT), match[2], match[3]
    if rest.startswith("mlp.adapter."):
        leaf = rest.removeprefix("mlp.adapter.")
        for theirs, ours in _ADAPTER.items():
            if leaf.startswith(theirs):
                leaf = ours + leaf.removeprefix(theirs)
                break
        return f"method.adapters.{tower}.{i}.{leaf}", None
    if third := _THIRD.fullmatch(rest):
        return official.replace(rest, "attn.in_proj_bias"), third[1]
    for theirs, ours in _CLIP.items():
        if rest.startswith(theirs):
            return official.replace(rest, ours + rest.removeprefix(theirs)), None
    return official, None
