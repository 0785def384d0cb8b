"""TempMe against LunarShen/TempMe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from discovla import losses
from discovla.errors import UserError
from discovla.methods.tempme import TempMe
from discovla.models.hooks import VISION, Batch, Dims, State
from discovla.models.retriever import Retriever
from discovla.parity.case import Case, errors
from discovla.settings import RunSettings

_TRACES = (
    "trace_after_layer",
    "attention_tokens",
    "tokens_before_matching",
    "merged_per_matching",
)
"""Lists of the JSON: numbers of tokens, which must agree exactly."""


class _Recorded(TempMe):
    """TempMe that notes the intermediate results a golden case holds."""

    def __init__(self, dims: Dims, settings: RunSettings) -> None:
        super().__init__(dims, settings)
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self.seen: dict[str, Tensor] = {}
        self.traces: dict[str, list[Any]] = {name: [] for name in _TRACES}

    def attn_out(self, i: int, state: State, y: Tensor) -> Tensor:
        """Note the length of the sequences."""
        if state.tower == VISION:
            self.traces["attention_tokens"].append(y.shape[1])
        return y

    def shorten(self, state: State, metric: Tensor, count: int) -> None:
        """Note how many tokens there are and how many go."""
        before = state.x.shape[1]
        super().shorten(state, metric, count)
        self.traces["tokens_before_matching"].append(before)
        self.traces["merged_per_matching"].append(before - state.x.shape[1])

    def post_layer(self, i: int, state: State) -> None:
        """Note the tokens after every block."""
        if state.eot is not None:
            self.seen[f"out/text_block{i}_eot"] = state.x[torch.arange(len(state.x)), state.eot]
            return
        groups, lead = state.groups, state.n_lead
        self.traces["trace_after_layer"].append([groups, state.x.shape[1], lead])
        classes = state.x[:, :lead].reshape(state.batch, -1, state.x.shape[-1])
        self.seen[f"out/vision_block{i}_cls"] = classes
        self.seen[f"out/vision_block{i}_tokens_video0"] = state.x[:groups]
        size = torch.ones(state.x.shape[:2]) if state.size is None else state.size
        self.seen[f"out/vision_block{i}_size"] = size.unflatten(0, (state.batch, groups))


def compare(case: Case, **changes: Any) -> dict[str, float]:
    """Errors of a case of TempMe: features, tokens and sizes, traces, losses and gradients."""
    case.require("r", "tome_r", "merge_layer", "merge_frame_num", "merge_token_proportion")
    frozen = {n.removeprefix("clip."): t for n, t in case.weights.items() if "TVPt" not in n}
    backbone = case.backbone(frozen)
    method = _Recorded(backbone.dims, _settings(case, changes))
    model = Retriever(backbone, method)
    _load(model, case)
    found = {**_outputs(model, method, case.batch), **_gradients(model, case.batch)}
    traces = {f"trace/{n}": torch.tensor(case[n]).float() for n in _TRACES if n in case.values}
    return errors({**case.wanted, **traces}, found)


def _settings(case: Case, changes: Mapping[str, Any]) -> RunSettings:
    """The case's schedule, which is written as 8-9-10."""
    joined, inner = _numbers(case, "merge_token_proportion")
    values = {
        "lora_rank": case["r"],
        "patch_merges": case["tome_r"],
        "merge_layers": _numbers(case, "merge_layer"),
        "merge_clips": _numbers(case, "merge_frame_num"),
        "joined_percent": joined,
        "inner_percent": inner,
    }
    return case.settings("tempme", {**values, **changes})


def _numbers(case: Case, key: str) -> list[int]:
    return [int(part) for part in case[key].split("-")]


def _official(name: str) -> str:
    """Official name of a tensor of `TempMe`."""
    if name.startswith("clip_position."):
        layer = name.split(".")[1]
        return f"clip.visual.transformer.resblocks.{layer}.TVPt_Video_Positional_embedding"
    _, tower, layer, leaf = name.split(".")
    visual = "visual." if tower == VISION else ""
    return f"clip.{visual}transformer.resblocks.{layer}.attn.TVPt_LoRA_{leaf}"


def _load(model: Retriever, case: Case) -> None:
    """Copy the trained tensors; positions are (1, G, 1, D) there."""
    own = {_official(n): n for n, _ in model.method.named_parameters()}
    given = {n: t for n, t in case.weights.items() if "TVPt" in n}
    if unknown := sorted(own.keys() ^ given.keys()):
        raise UserError(f"{case.path}: not the parameters of its schedule: {unknown[:5]}")
    state = {
        f"method.{ours}": given[name][0, :, 0] if "Positional" in name else given[name]
        for name, ours in own.items()
    }
    model.load_trainable_state(state, str(case.path))


@torch.no_grad()
def _outputs(model: Retriever, method: _Recorded, batch: Batch) -> dict[str, Tensor]:
    """Everything of `out/`, the evaluation path too, and the traces."""
    text = model.encode_text(batch["text_ids"], batch["text_mask"])
    video = model.encode_video(batch["video"], batch["video_mask"]).pooled
    method.forget()
    out = model(batch)
    logits = losses.cosine(out.text, out.video) * out.logit_scale
    truth = torch.arange(len(logits))
    traces = {f"trace/{n}": torch.tensor(v).float() for n, v in method.traces.items()}
    return {
        **method.seen,
        **traces,
        "out/text_feat": out.text,
        "out/video_feat": out.video,
        "out/frame_feat_normed": F.normalize(out.frames, dim=-1),
        "out/logits_t2v": logits,
        "out/logits_v2t": logits.T,
        "out/loss_t2v": F.cross_entropy(logits, truth),
        "out/loss_v2t": F.cross_entropy(logits.T, truth),
        "out/loss": model.loss_of(out, batch)["loss"],
        "out/eval_text": text,
        "out/eval_video": video,
        "out/eval_sim": losses.cosine(text, video) * out.logit_scale,
    }


def _gradients(model: Retriever, batch: Batch) -> dict[str, Tensor]:
    """Gradients of the loss by the golden case's names, in its shapes."""
    own = {_official(n): p for n, p in model.method.named_parameters()}
    loss = model.loss(batch)["loss"]
    gradients = torch.autograd.grad(
        loss, list(own.values()), allow_unused=True, materialize_grads=True
    )
    return {
        f"grad/{n}": g[None, :, None] if "Positional" in n else g
        for n, g in zip(own, gradients, strict=True)
    }
