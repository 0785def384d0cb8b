"""DiscoVLA against LunarShen/DsicoVLA."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from discovla import losses
from discovla.errors import UserError
from discovla.methods.discovla import DiscoVLA
from discovla.models.hooks import TEXT, VISION, Batch, Outputs, State
from discovla.models.retriever import Retriever
from discovla.parity.case import Case, errors
from discovla.settings import RunSettings

_OFFICIAL = re.compile(r"clip\.(visual\.)?transformer\.resblocks\.(\d+)\.attn\.TVPt_(\w+)")
_GRADIENTS = {
    "grad": "loss",
    "grad_vid": "loss_vid",
    "grad_img": "loss_img",
    "grad_kl": "loss_kl",
}


class _Recorded(DiscoVLA):
    """DiscoVLA that notes the intermediate results a golden case holds."""

    seen: dict[str, Tensor]

    def attn_out(self, i: int, state: State, y: Tensor) -> Tensor:
        """Note results of the fusing attentions."""
        if i >= self.first[state.tower] and (state.tower == VISION or state.joint):
            name = "vision" if state.tower == VISION else "text_img"
            self.seen[f"out/{name}_attn{i}"] = y
        return y

    def post_layer(self, i: int, state: State) -> None:
        """Note the lead token after every block."""
        lead = state.x[torch.arange(len(state.x)), state.lead()]
        if state.tower == VISION:
            self.seen[f"out/vision_block{i}_cls"] = lead
        else:
            kind = "img" if state.joint else "vid"
            self.seen[f"out/text_{kind}_block{i}_eot"] = lead


def compare(case: Case, **changes: Any) -> dict[str, float]:
    """Errors of a case of DiscoVLA: features, intermediate results, every loss and gradient."""
    case.require("H_V", "H_L", "r", "alpha", "beta")
    frozen = {n.removeprefix("clip."): t for n, t in case.weights.items() if "TVPt" not in n}
    trained = {_our_name(n): t for n, t in case.weights.items() if "TVPt" in n}
    backbone = case.backbone(frozen)
    method = _Recorded(backbone.dims, _settings(case, changes))
    model = Retriever(backbone, method)
    model.load_trainable_state(trained, str(case.path))
    found_inputs = {n: t for n, t in case.golden.items() if n.startswith("in/")}
    batch = {n.removeprefix("in/"): t for n, t in found_inputs.items()}
    found = {**_outputs(model, method, batch), **_gradients(model, batch)}
    wanted = dict(case.wanted)
    padding = ~batch["frame_text_mask"].flatten(0, 1).bool()
    for name in wanted:
        if name.startswith("out/text_img_attn"):  # undefined on padding
            for tensors in (wanted, found):
                tensors[name] = tensors[name].masked_fill(padding[..., None], 0)
    return errors(wanted, found)


def _settings(case: Case, changes: Mapping[str, Any]) -> RunSettings:
    """The released code's arithmetic: the defaults of `RunSettings` with the case's sizes."""
    values = {
        "lora_rank": case["r"],
        "adapter_rank": case["r"],
        "vision_layers": case["H_V"],
        "text_layers": case["H_L"],
        "alpha": case["alpha"],
        "beta": case["beta"],
    }
    return case.settings("discovla", {**values, **changes})


def _our_name(official: str) -> str:
    """Name in our model of an official trainable parameter."""
    match = _OFFICIAL.fullmatch(official)
    if match is None:
        raise UserError(f"golden case: unknown parameter name {official}")
    tower = VISION if match[1] else TEXT
    if match[3].startswith("LoRA_"):
        return f"method.lora.{tower}.{match[2]}.{match[3].removeprefix('LoRA_')}"
    return f"method.fusion.{tower}.{match[2]}.{match[3]}"


@torch.no_grad()
def _outputs(model: Retriever, method: _Recorded, batch: Batch) -> dict[str, Tensor]:
    """Everything of `out/`: features, logits, losses, intermediate results, evaluation path."""
    method.seen = {}
    out = model(batch)
    found = {
        **method.seen,
        "out/text_video_feat": out.text,
        "out/frame_feat": out.frames,
        "out/video_feat": out.video,
        "out/eval_text": model.encode_text(batch["text_ids"], batch["text_mask"]),
        "out/eval_video": model.encode_video(batch["video"], batch["video_mask"]).pooled,
        **{f"out/{name}": value for name, value in model.loss_of(out, batch).items()},
        **_similarities(out, method.settings),
    }
    evaluated = losses.cosine(found["out/eval_text"], found["out/eval_video"])
    found["out/eval_sim"] = evaluated * out.logit_scale
    return found


def _similarities(out: Outputs, settings: RunSettings) -> dict[str, Tensor]:
    assert out.frame_texts is not None
    scale = out.logit_scale
    video = losses.cosine(out.text, out.video)
    image = losses.image_similarity(
        out.frame_texts, out.frames, scale, settings.image_similarity, settings.maxima_pooling
    )
    return {
        "out/text_frame_feat": out.frame_texts,
        "out/logits_vid_t2v": scale * video,
        "out/logits_vid_v2t": scale * video.T,
        "out/logits_img_t2v": scale * image,
        "out/logits_img_v2t": scale * image.T,
        "out/kl_sum_t2v": losses.divergence(image, video, scale),
        "out/kl_sum_v2t": losses.divergence(image.T, video.T, scale),
    }


def _gradients(model: Retriever, batch: Batch) -> dict[str, Tensor]:
    """Gradients of the total and of each term, by the golden case's names."""
    names = dict(_trained_names(model))
    terms = model.loss(batch)
    found = {}
    for prefix, term in _GRADIENTS.items():
        if term not in terms:
            continue
        gradients = torch.autograd.grad(
            terms[term], list(names.values()), retain_graph=True, allow_unused=True
        )
        for name, gradient in zip(names, gradients, strict=True):
            if gradient is not None:
                found[f"{prefix}/{name}"] = gradient
    return found


def _trained_names(model: Retriever) -> Iterator[tuple[str, Tensor]]:
    """Official name and parameter of every trained tensor."""
    for name, parameter in model.method.named_parameters():
        kind, tower, i, leaf = name.split(".")
        visual = "visual." if tower == VISION else ""
        leaf = f"LoRA_{leaf}" if kind == "lora" else leaf
        yield f"clip.{visual}transformer.resblocks.{i}.attn.TVPt_{leaf}", parameter
