"""Base VoP against modelscope/modelscope."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from discovla import losses
from discovla.models.hooks import TEXT, VISION
from discovla.parity.case import Case, errors
from discovla.parity.prompt import gradients_of, prompted

_NAMES = {
    "text_prompt_learner.text_prompts": TEXT,
    "visual_prompt_learner.visual_prompts": VISION,
}
_LEFT_OUT = "out/split_"
"""Text prompts half before and half behind the words, which act only on texts of full length."""


def compare(case: Case, **changes: Any) -> dict[str, float]:
    """Errors of features, scores, loss and both kinds of gradients.

    The recorded head ranks by the mean of normalised frames as it is, not normalised again.
    """
    case.require("n_prefix", "n_vision")
    frozen = {n.removeprefix("clip."): t for n, t in case.weights.items() if n.startswith("clip.")}
    model = prompted(case, "vop", {"prompts": case["n_prefix"], **changes}, frozen)
    bank = {tower: model.method.prompts[tower].weight for tower in (TEXT, VISION)}  # type: ignore[index, union-attr]
    with torch.no_grad():
        for name, tower in _NAMES.items():
            bank[tower].copy_(case.weights[name].reshape(bank[tower].shape))
    batch = case.batch
    raw = model.encode_text(batch["text_ids"], batch["text_mask"])
    text = F.normalize(raw, dim=-1)
    frames, pooled = model.encode_video(batch["video"])
    score = text @ pooled.T
    found = {
        "out/text_feat_raw": raw,
        "out/text_feat": text,
        "out/frame_feat_raw": frames,
        "out/frame_feat": F.normalize(frames, dim=-1),
        "out/video_feat": pooled,
        "out/score": score,
        "out/logits": score * model.logit_scale,
        "out/loss": losses.contrastive_loss(score, model.logit_scale),
    }
    fixed = case.golden
    products = (text * fixed["in/ct_text"]).sum() + (pooled * fixed["in/ct_video"]).sum()
    wanted = {n: t for n, t in case.wanted.items() if not n.startswith(_LEFT_OUT)}
    for prefix, value in (("grad", found["out/loss"]), ("grad_vjp", products)):
        gradients = gradients_of(value, bank)
        for name, tower in _NAMES.items():
            key = f"{prefix}/{name}"
            found[key] = gradients[tower].reshape(wanted[key].shape)
    return errors(wanted, {n: t.detach() for n, t in found.items()})
