"""Independent prompts against muzairkhattak/multimodal-prompt-learning (IVLP)."""

from __future__ import annotations

import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from discovla import losses
from discovla.methods import method_class
from discovla.models.hooks import TEXT, VISION
from discovla.models.retriever import Retriever, build_retriever
from discovla.parity.case import Case, errors

_FIRST = {"prompt_learner.ctx": TEXT, "image_encoder.VPT": VISION}
_LATER = re.compile(r"(text|image)_encoder\.transformer\.resblocks\.(\d+)\.VPT_shallow")


def compare(case: Case, **changes: Any) -> dict[str, float]:
    """Errors of features, both heads and both kinds of gradients."""
    case.require("n_text", "n_vision")
    frozen = {n.removeprefix("clip."): t for n, t in case.weights.items() if n.startswith("clip.")}
    prompts = {_place(n): t for n, t in case.weights.items() if not n.startswith("clip.")}
    model = prompted(case, "prompt", {"prompts": case["n_text"], **changes}, frozen)
    bank = {tower: model.method.prompts[tower].weight for tower in (TEXT, VISION)}  # type: ignore[index, union-attr]
    with torch.no_grad():
        for (tower, i), value in prompts.items():
            bank[tower][i] = value
    batch = case.batch
    text = model.encode_text(batch["text_ids"], batch["text_mask"])
    frames, pooled = model.encode_video(batch["video"])
    logits = losses.cosine(text, pooled) * model.logit_scale
    images = losses.cosine(frames[:, 0], text) * model.logit_scale
    truth = torch.arange(len(images))
    found = {
        "out/text_feat": text,
        "out/frame_feat": frames,
        "out/video_feat": pooled,
        "out/logits": logits,
        "out/loss": losses.contrastive_loss(losses.cosine(text, pooled), model.logit_scale),
        "out/cls_logits_frame0": images,
        "out/cls_loss_frame0": F.cross_entropy(images, truth),
    }
    fixed = case.golden
    products = (text * fixed["in/ct_text"]).sum() + (frames * fixed["in/ct_frame"]).sum()
    for prefix, value in (("grad", found["out/loss"]), ("grad_vjp", products)):
        gradients = gradients_of(value, bank)
        for name in case.wanted:
            if name.startswith(f"{prefix}/"):
                tower, i = _place(name.removeprefix(f"{prefix}/"))
                found[name] = gradients[tower][i]
    return errors(case.wanted, {n: t.detach() for n, t in found.items()})


def prompted(
    case: Case, method: str, values: dict[str, Any], frozen: dict[str, Tensor]
) -> Retriever:
    """A model of a case whose method is `method`, or a class that a test puts in its place."""
    kind = values.pop("kind", None) or method_class(method)
    backbone = case.backbone(frozen)
    settings = case.settings(method, values)
    if kind is method_class(method):
        return build_retriever(settings, backbone)
    return Retriever(backbone, kind(backbone.dims, settings))


def gradients_of(value: Tensor, of: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradients of a scalar by the names in `of`."""
    found = torch.autograd.grad(value, list(of.values()), retain_graph=True)
    return dict(zip(of, found, strict=True))


def _place(official: str) -> tuple[str, int]:
    """Tower and block of an official parameter."""
    if official in _FIRST:
        return _FIRST[official], 0
    match = _LATER.fullmatch(official)
    assert match is not None, official
    return (TEXT if match[1] == "text" else VISION), int(match[2])
