"""DGL against numbers recorded from knightyxp/DGL (linear and transformer)."""

from __future__ import annotations

import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from discovla import losses
from discovla.methods.dgl import DGL
from discovla.models.hooks import VISION, State
from discovla.models.retriever import Retriever
from discovla.parity.case import Case, errors

_BANKS = ("clip.visual_prompt_embedding", "clip.unified_prompt_embedding.weight")
_NAMES = {
    "clip.visual.prompt_embeddings": "global_prompts.weight",
    "clip.prefix_text_prompt_proj_layer.": "prompts.prefix.",
    "clip.postfix_text_prompt_proj_layer.": "prompts.postfix.",
    "clip.PromptTransformer.resblocks.0.attn.in_proj_": "prompts.block.qkv.",
    "clip.PromptTransformer.resblocks.0.attn.out_proj.": "prompts.block.out.",
    "clip.PromptTransformer.resblocks.0.mlp.c_fc.": "prompts.block.fc.",
    "clip.PromptTransformer.resblocks.0.mlp.c_proj.": "prompts.block.proj.",
    "clip.PromptTransformer.resblocks.0.": "prompts.block.",
    "clip.unified_prompt_mlp.c_": "prompts.",
}
_OWN = re.compile("|".join(map(re.escape, (*_BANKS, *_NAMES))))


class Recorded(DGL):
    """DGL that notes its tokens after every block."""

    seen: dict[str, Tensor]

    def post_layer(self, i: int, state: State) -> None:
        """Note class, global and end tokens."""
        super().post_layer(i, state)
        if state.tower == VISION:
            x = state.x.unflatten(0, (state.batch, state.groups))
            self.seen[f"out/vision_block{i}_cls"] = x[:, :, 0]
            self.seen[f"out/vision_block{i}_global"] = x[:, 0, 1 : 1 + self.count]
        else:
            self.seen[f"out/text_block{i}_eot"] = state.x[torch.arange(len(state.x)), state.eot]


def compare(case: Case, **changes: Any) -> dict[str, float]:
    """Errors of features, prompts, tokens, read-outs, losses and gradients."""
    case.require("variant", "n_local_prompts")
    kind = changes.pop("kind", Recorded)
    own = {n: t for n, t in case.weights.items() if _OWN.match(n)}
    frozen = {n.removeprefix("clip."): t for n, t in case.weights.items() if n not in own}
    backbone = case.backbone(frozen)
    values = {"prompts": case["n_local_prompts"], "generator": case["variant"], **changes}
    method = kind(backbone.dims, case.settings("dgl", values))
    model = Retriever(backbone, method)
    layers = max(case["vl"], case["tl"])
    where = str(case.path)
    model.load_trainable_state({_our_name(n): _ours(n, t, layers) for n, t in own.items()}, where)
    found = _outputs(case, model, method)
    parameters = dict(method.named_parameters())
    gradients = torch.autograd.grad(found["out/loss"], parameters.values(), allow_unused=True)
    by_name = dict(zip(parameters, gradients, strict=True))
    for name in own:
        gradient = by_name[_our_name(name).removeprefix("method.")]
        if gradient is not None:
            found[f"grad/{name}"] = _theirs(name, gradient).reshape(own[name].shape)
    noise = [n for n in case.wanted if n.endswith("in_proj_bias")]
    wanted = dict(case.wanted)
    for name in noise:  # its middle third, the key bias, is zero in theory
        for tensors in (wanted, found):
            for part, third in zip("qkv", tensors.pop(name).chunk(3), strict=True):
                tensors[f"{name}.{part}"] = third
    keys = [f"{name}.k" for name in noise]
    return errors(wanted, {n: t.detach() for n, t in found.items()}, keys)


def _outputs(case: Case, model: Retriever, method: Recorded) -> dict[str, Tensor]:
    """Everything of `out/`."""
    batch = case.batch
    method.seen = {}
    text = model.encode_text(batch["text_ids"], batch["text_mask"])
    frames, pooled = model.encode_video(batch["video"], batch["video_mask"])
    logits = losses.cosine(text, pooled) * model.logit_scale
    truth = torch.arange(len(logits))
    count, local = method.count, method.prompts.local(case["Fr"])
    return {
        **method.seen,
        "out/text_feat": text,
        "out/video_feat": pooled,
        "out/eval_text": text,
        "out/eval_video": pooled,
        "out/eval_sim": logits,
        "out/logits_t2v": logits,
        "out/logits_v2t": logits.T,
        "out/loss_t2v": F.cross_entropy(logits, truth),
        "out/loss_v2t": F.cross_entropy(logits.T, truth),
        "out/loss": losses.contrastive_loss(losses.cosine(text, pooled), model.logit_scale),
        "out/text_prompts": method.prompts.texts()[: case["tl"]],
        "out/visual_prompts": local.flatten(1, 2)[: case["vl"]],
        "out/pool_average_global_prompt": frames[:, :count].mean(1),
        "out/pool_average_frame_cls_token": frames[:, count:].mean(1),
        "out/pool_average_global_prompt_and_frame_cls_token": frames.mean(1),
    }


def _our_name(official: str) -> str:
    if official in _BANKS:
        return "method.prompts.bank.weight"
    prefix = max((p for p in _NAMES if official.startswith(p)), key=len)
    return f"method.{_NAMES[prefix]}{official.removeprefix(prefix)}"


def _ours(official: str, tensor: Tensor, layers: int) -> Tensor:
    """Their bank has its layers in the last axis, ours in the first."""
    if official in _BANKS:
        return tensor.squeeze(0).unflatten(-1, (layers, -1)).transpose(0, 1).contiguous()
    return tensor.squeeze(0) if official == "clip.visual.prompt_embeddings" else tensor


def _theirs(official: str, tensor: Tensor) -> Tensor:
    return tensor.transpose(0, 1).flatten(1) if official in _BANKS else tensor
