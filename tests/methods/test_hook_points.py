"""The hook points suffice for methods that insert tokens, regroup frames and merge tokens.

Two throw-away methods are written on the hook points alone and checked against plain loops over
open_clip's modules: the encoder must not need a change for such methods.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from discovla.methods.lora import LoRA
from discovla.models import encoder
from discovla.models.hooks import HOOKS, VISION, Core, Method, State
from discovla.models.retriever import Retriever
from tests.models import tiny

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
PROMPTS = 2


class Prompts(Method):
    """Fresh prompts behind CLS or SOT in every block of both towers, dropped after it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.prompts = nn.ParameterDict(
            {
                tower: torch.empty(dims.layers, PROMPTS, dims.width)
                for tower, dims in (("vision", self.dims.vision), ("text", self.dims.text))
            }
        )

    def pre_layer(self, i: int, state: State) -> None:
        prompts = self.prompts[state.tower][i].expand(len(state.x), -1, -1)
        state.x = torch.cat([state.x[:, :1], prompts, state.x[:, 1:]], 1)
        if state.eot is not None:
            state.eot = state.eot + PROMPTS

    def post_layer(self, i: int, state: State) -> None:
        state.x = torch.cat([state.x[:, :1], state.x[:, 1 + PROMPTS :]], 1)
        if state.eot is not None:
            state.eot = state.eot - PROMPTS


class EarlyPrompts(Prompts):
    """Text prompts put in once, before the positional table: words move to later rows."""

    def embed(self, state: State, when: str) -> None:
        if state.tower == "text" and when == "before":
            super().pre_layer(0, state)

    def pre_layer(self, i: int, state: State) -> None:
        """Nothing more."""

    def post_layer(self, i: int, state: State) -> None:
        """Prompts stay; the end token keeps its shifted place."""


class Joining(LoRA):
    """Top vision blocks see all frames as one sequence, patches merged in pairs of neighbours.

    Merged tokens count with their size in the attention. The order of the sequence: class tokens of
    all frames, then patches.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.join_at = self.dims.vision.layers - 2
        self.frame_position = nn.Parameter(torch.empty(3, self.dims.vision.width))

    def pre_layer(self, i: int, state: State) -> None:
        if state.tower != VISION:
            return
        if i == self.join_at:
            x = state.x.unflatten(0, (state.batch, state.groups))
            x = x + self.frame_position[: state.groups, None]
            state.n_lead, state.groups = state.groups, 1
            state.x = torch.cat([x[:, :, 0], x[:, :, 1:].flatten(1, 2)], 1)
            state.size = state.x.new_ones(state.x.shape[:2])
        if state.size is not None:
            state.key_bias = state.size.log()

    def mid_layer(self, i: int, state: State, k: Tensor) -> None:
        if state.size is None:
            return
        assert k.shape == state.x.shape
        lead, size = state.n_lead, state.size[:, state.n_lead :, None]
        patches = (state.x[:, lead:] * size).unflatten(1, (-1, 2)).sum(2)
        size = size.unflatten(1, (-1, 2)).sum(2)
        state.x = torch.cat([state.x[:, :lead], patches / size], 1)
        state.size = torch.cat([state.size[:, :lead], size[..., 0]], 1)


def model_of(method: type[Method]) -> Retriever:
    backbone = tiny.backbone()
    built = method(backbone.dims, tiny.settings("lora"))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return Retriever(backbone, built)


def causal(length: int) -> Tensor:
    return torch.full((length, length), float("-inf")).triu(1)


@torch.no_grad()
def test_tokens_can_come_and_go_in_every_layer_of_both_towers() -> None:
    model, batch = model_of(Prompts), tiny.batch()
    out, clip, prompts = model(batch), model.clip, model.method.prompts
    ids = batch["text_ids"]
    x = clip.token_embedding(ids) + clip.positional_embedding[: ids.shape[1]]
    for block, extra in zip(clip.transformer.resblocks, prompts["text"], strict=True):
        x = torch.cat([x[:, :1], extra.expand(len(x), -1, -1), x[:, 1:]], 1)
        x = block(x, attn_mask=causal(x.shape[1]))
        x = torch.cat([x[:, :1], x[:, 1 + PROMPTS :]], 1)
    ends = clip.ln_final(x[torch.arange(len(x)), ids.argmax(-1)])
    torch.testing.assert_close(out.text, ends @ clip.text_projection, **CLOSE)

    visual = clip.visual
    x = visual._embeds(batch["video"].flatten(0, 1))
    for block, extra in zip(visual.transformer.resblocks, prompts["vision"], strict=True):
        x = block(torch.cat([x[:, :1], extra.expand(len(x), -1, -1), x[:, 1:]], 1))
        x = torch.cat([x[:, :1], x[:, 1 + PROMPTS :]], 1)
    expected = visual.ln_post(x[:, 0]) @ visual.proj
    torch.testing.assert_close(out.frames.flatten(0, 1), expected, **CLOSE)


@torch.no_grad()
def test_tokens_before_the_positional_table_shift_words_and_end() -> None:
    model, batch = model_of(EarlyPrompts), tiny.batch()
    clip, ids = model.clip, batch["text_ids"]
    words, extra = clip.token_embedding(ids), model.method.prompts["text"][0]
    x = torch.cat([words[:, :1], extra.expand(len(ids), -1, -1), words[:, 1:]], 1)
    x = clip.transformer(x + clip.positional_embedding[: x.shape[1]], attn_mask=causal(x.shape[1]))
    ends = clip.ln_final(x[torch.arange(len(x)), ids.argmax(-1) + PROMPTS])
    found = model.encode_text(ids, batch["text_mask"])
    torch.testing.assert_close(found, ends @ clip.text_projection, **CLOSE)


@torch.no_grad()
def test_frames_can_be_joined_and_their_tokens_merged() -> None:
    model, batch = model_of(Joining), tiny.batch(frames=2)
    found = model.encode_video(batch["video"]).frames
    visual, method = model.clip.visual, model.method
    for sample, video in enumerate(batch["video"]):
        frames = list(visual._embeds(video))
        for i, block in enumerate(visual.transformer.resblocks):
            low_rank = method.lora["vision"][i]
            weight = block.attn.in_proj_weight + low_rank.b @ low_rank.a
            if i == method.join_at:
                moved = [x + method.frame_position[f] for f, x in enumerate(frames)]
                frames = [torch.cat([x[:1] for x in moved] + [x[1:] for x in moved])]
                sizes = [1.0] * len(frames[0])
            joined = i >= method.join_at
            for f, x in enumerate(frames):
                bias = torch.tensor(sizes).log() if joined else torch.zeros(len(x))
                x = x + naive_self_attention(block, weight, block.ln_1(x), bias)
                if joined:
                    x, sizes = merge_neighbours(x, sizes, lead=2)
                frames[f] = x + block.mlp(block.ln_2(x))
        expected = visual.ln_post(frames[0][:2]) @ visual.proj
        torch.testing.assert_close(found[sample], expected, **CLOSE)


def naive_self_attention(block: Any, weight: Tensor, h: Tensor, bias: Tensor) -> Tensor:
    attn = block.attn
    y, _ = F.multi_head_attention_forward(
        *(h[:, None],) * 3,
        h.shape[1],
        attn.num_heads,
        weight,
        attn.in_proj_bias,
        None,
        None,
        False,
        0.0,
        attn.out_proj.weight,
        attn.out_proj.bias,
        attn_mask=bias.expand(len(h), -1),
        need_weights=False,
    )
    return y[:, 0]


def merge_neighbours(x: Tensor, sizes: list[float], lead: int) -> tuple[Tensor, list[float]]:
    rows, merged = list(x[:lead]), sizes[:lead]
    for t in range(lead, len(x), 2):
        total = sizes[t] + sizes[t + 1]
        rows.append((x[t] * sizes[t] + x[t + 1] * sizes[t + 1]) / total)
        merged.append(total)
    return torch.stack(rows), merged


@pytest.mark.parametrize("method", [Prompts, Joining])
def test_they_can_be_trained(method: type[Method]) -> None:
    model = model_of(method)
    model.loss(tiny.batch())["loss"].backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None and bool(parameter.grad.any())) == (
            parameter.requires_grad
        ), name


class Noting(Method):
    """Notes every call of a hook."""


def test_every_hook_is_called_at_its_place() -> None:
    calls: list[str] = []

    def noted(name: str) -> Any:
        def hook(self: Method, *args: Any, **kwargs: Any) -> Any:
            op = args[2] if name == "inner" else args[1] if name == "embed" else ""
            calls.append(f"{name}:{op}" if op else name)
            return getattr(Method, name)(self, *args, **kwargs)

        return hook

    for name in HOOKS:
        setattr(Noting, name, noted(name))
    assert Noting.hooks_used() == list(HOOKS)
    model = model_of(Noting)
    assert calls == ["trainable"]
    calls.clear()
    model.loss(tiny.batch())
    block = "pre_layer inner:ln_1 inner:qkv qkv attend inner:out attn_out mid_layer "
    block += "inner:ln_2 inner:fc inner:proj mlp_out post_layer"
    tower = ["begin", "embed:before", "embed:after"]
    assert calls == [
        "text_inputs",
        *tower,
        *block.split() * 4,
        "readout",
        *tower,
        *block.split() * 3,
        "readout",
        "pool",
        "losses",
    ]


def test_attention_core_matches_its_definition() -> None:
    class Asking(Method):
        def attend(
            self, i: int, state: State, q: Tensor, k: Tensor, v: Tensor, core: Core
        ) -> Tensor:
            future = causal(q.shape[1]).expand(len(q), -1, -1)
            bias = torch.linspace(-1, 1, k.shape[1]).expand(len(k), -1)
            both = core.mix(q, k, v, bias=bias, causal=True)
            torch.testing.assert_close(both, core.mix(q, k, v, bias=bias[:, None] + future))
            torch.testing.assert_close(
                core.mix(q, k, v, causal=True), core.mix(q, k, v, bias=future)
            )
            return core.out(both)

    model_of(Asking)(tiny.batch())


def test_encoder_knows_no_method() -> None:
    source = inspect.getsource(encoder).lower()
    assert not any(name in source for name in ("lora", "discovla.methods", "fusion", "zero_shot"))
