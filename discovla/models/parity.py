"""Comparison with numbers recorded from the authors' released code.

A golden case is `NAME.json` (sizes and settings) with `NAME.weights_*.safetensors` (parameters
under the official names) and `NAME.io.safetensors` (`in/*`, `out/*`, `grad*/*`) beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from discovla import losses
from discovla.errors import UserError
from discovla.files import read_json
from discovla.methods.discovla import DiscoVLA
from discovla.models.backbone import build_backbone
from discovla.models.hooks import TEXT, VISION, Batch, Outputs, State
from discovla.models.retriever import Retriever
from discovla.models.weights import load_strictly
from discovla.settings import RunSettings

HEAD_WIDTH = 64
OUTPUT_LIMIT, GRADIENT_LIMIT = 1e-4, 1e-3
"""Largest allowed relative errors; float32 noise reaches 2e-5 and 8e-5, a wrong formula 4e-2."""
_KEYS = {"vw", "vl", "patch", "res", "tw", "tl", "embed", "vocab", "ctx"}
_KEYS |= {"Fr", "B", "L", "H_V", "H_L", "r", "alpha", "beta"}
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


def within_limits(errors: Mapping[str, float]) -> bool:
    """Whether every output is within 1e-4 and every gradient within 1e-3."""
    return all(error <= limit_of(name) for name, error in errors.items())


def limit_of(name: str) -> float:
    """Largest allowed relative error of a golden tensor."""
    return GRADIENT_LIMIT if name.startswith("grad") else OUTPUT_LIMIT


def compare(path: str | Path, **changes: Any) -> dict[str, float]:
    """Relative errors of every tensor of a golden case, by its name there.

    The error is the largest absolute difference over the largest absolute golden value (absolute
    where that is zero), infinite if a value is not finite. A gradient that the case holds and the
    model lacks counts as zero.

    Args:
        path: the case's JSON file.
        changes: settings that differ from the released code's, to see that they are noticed.

    Raises:
        UserError: a file is absent, damaged or lacks something.
    """
    path = Path(path)
    case, weights, golden = _read_case(path)
    model, method = _build(path, case, weights, changes)
    batch = {n.removeprefix("in/"): t for n, t in golden.items() if n.startswith("in/")}
    found = _outputs(model, method, batch) | _gradients(model, batch)
    wanted = {n: t for n, t in golden.items() if not n.startswith("in/")}
    if unknown := sorted(n for n in wanted if n.startswith("out/") and n not in found):
        raise UserError(f"{path}: nothing to compare with {', '.join(unknown[:5])}")
    padding = ~batch["frame_text_mask"].flatten(0, 1).bool()
    errors = {}
    for name, reference in wanted.items():
        mine = found.get(name, torch.zeros_like(reference))
        if name.startswith("out/text_img_attn"):  # undefined on padding
            mine, reference = (t.masked_fill(padding[..., None], 0) for t in (mine, reference))
        errors[name] = _relative_error(mine, reference)
    return errors


def _relative_error(found: Tensor, reference: Tensor) -> float:
    if found.shape != reference.shape or not found.isfinite().all():
        return float("inf")
    scale = float(reference.abs().max()) or 1.0
    return float((found - reference).abs().max()) / scale


def _read_case(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    """The JSON, the merged weights in float32, and the inputs and results."""
    case = read_json(path)
    if not isinstance(case, dict) or (missing := sorted(_KEYS - case.keys())):
        raise UserError(f"{path}: not a golden case: no {missing or 'mapping'}")
    parts = sorted(path.parent.glob(f"{path.stem}.weights_*.safetensors"))
    if not parts:
        raise UserError(f"{path}: no {path.stem}.weights_*.safetensors beside it")
    try:
        weights = {n: t.float() for part in parts for n, t in load_file(part).items()}
        return case, weights, load_file(path.with_name(f"{path.stem}.io.safetensors"))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: files beside it cannot be read: {error}") from None


def _build(
    path: Path, case: Mapping[str, Any], weights: Mapping[str, Tensor], changes: Mapping[str, Any]
) -> tuple[Retriever, _Recorded]:
    config = {
        "embed_dim": case["embed"],
        "quick_gelu": True,
        "vision_cfg": {
            "layers": case["vl"],
            "width": case["vw"],
            "head_width": HEAD_WIDTH,
            "patch_size": case["patch"],
            "image_size": case["res"],
        },
        "text_cfg": {
            "context_length": case["ctx"],
            "vocab_size": case["vocab"],
            "width": case["tw"],
            "heads": case["tw"] // HEAD_WIDTH,
            "layers": case["tl"],
        },
    }
    backbone = build_backbone(config, name=str(path))
    method = _Recorded(backbone.dims, _settings(case, changes))
    model = Retriever(backbone, method)
    frozen = {n.removeprefix("clip."): t for n, t in weights.items() if "TVPt" not in n}
    trained = {_our_name(n): t for n, t in weights.items() if "TVPt" in n}
    load_strictly(backbone.clip, frozen, f"{path} (frozen weights)", str(path))
    model.load_trainable_state(trained, str(path))
    return model, method


def _settings(case: Mapping[str, Any], changes: Mapping[str, Any]) -> RunSettings:
    """The released code's arithmetic (the defaults of `RunSettings`) with the case's sizes.

    Nothing is trained, so the optimiser's settings only have to be there.
    """
    values: dict[str, Any] = {
        "method": "discovla",
        "backbone": "golden",
        "lora_rank": case["r"],
        "adapter_rank": case["r"],
        "vision_layers": case["H_V"],
        "text_layers": case["H_L"],
        "alpha": case["alpha"],
        "beta": case["beta"],
        "frames": case["Fr"],
        "words": case["L"],
        "batch_size": case["B"],
        "captioner": "golden",
        **dict.fromkeys(("epochs", "lr", "beta1", "beta2", "adam_eps", "sampling_fps"), 1),
        **dict.fromkeys(("weight_decay", "warmup", "clip_norm"), 0),
    }
    return RunSettings.from_mapping({**values, **changes}, "golden case")


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
