"""Our own forward pass over open_clip's modules, calling a method's hooks at every step.

Batch first, every product by the fastest kernel that fits it (`kernels`); the last block only for
the tokens that are read out, where the method looks at no others (`lead`). Without hooks it equals
open_clip's own forward pass, except that captions may be shorter than the positional table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from discovla.models import kernels
from discovla.models.hooks import TEXT, VISION, Method, State, TextInput
from discovla.models.lead import can_narrow, lead_suffices, narrow


class Attention:
    """The attention core of one block (`hooks.Core`).

    `places` (N,) says which token of its caption the query is, if it is but one.
    """

    def __init__(
        self, i: int, block: Any, method: Method, state: State, places: Tensor | None = None
    ) -> None:
        self._i, self._attn, self._method, self._state = i, block.attn, method, state
        self._places = places
        self.heads: int = block.attn.num_heads

    def mix(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """Softmax attention of q (N, Tq, D) over k, v (N, Tk, D).

        Args:
            q: queries.
            k: keys.
            v: values.
            bias: added to the logits, (N, Tk) or (N, Tq, Tk).
            causal: query t sees keys up to t; needs Tq = Tk, or the lead tokens' queries alone.

        Returns:
            (N, Tq, D), heads joined, before the output projection.
        """
        if causal and self._places is not None:
            later = torch.arange(k.shape[1], device=k.device) > self._places[:, None]
            seen = q.new_zeros(later.shape).masked_fill(later, float("-inf"))
            bias, causal = seen if bias is None else seen + bias, False
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        if bias is not None:
            bias = (bias[:, None, None] if bias.dim() == 2 else bias[:, None]).to(q.dtype)
            if causal:
                future = q.new_full((q.shape[-2], k.shape[-2]), float("-inf")).triu(1)
                bias, causal = bias + future, False
        return kernels.attention(q, k, v, bias, causal).transpose(1, 2).flatten(2)

    def out(self, y: Tensor) -> Tensor:
        """The frozen output projection."""
        out = self._attn.out_proj
        y = kernels.linear(y, out.weight, out.bias)
        return self._method.inner(self._i, self._state, "out", y)


def _run_block(i: int, block: Any, method: Method, state: State, lead_only: bool) -> None:
    method.pre_layer(i, state)
    h = method.inner(i, state, "ln_1", kernels.normed(block.ln_1, state.x))
    qkv = kernels.linear(h, block.attn.in_proj_weight, block.attn.in_proj_bias)
    qkv = method.qkv(i, state, h, method.inner(i, state, "qkv", qkv))
    q, k, v = qkv.chunk(3, dim=-1)
    places = None
    if lead_only and can_narrow(state):
        q, places = narrow(state, q)
    y = method.attend(i, state, q, k, v, Attention(i, block, method, state, places))
    state.x = state.x + method.attn_out(i, state, y)
    method.mid_layer(i, state, k)
    fc, proj = block.mlp.c_fc, block.mlp.c_proj
    h = method.inner(i, state, "ln_2", kernels.normed(block.ln_2, state.x))
    h = method.inner(i, state, "fc", kernels.linear(h, fc.weight, fc.bias))
    h = kernels.activation(block.mlp.gelu, h)
    y = method.inner(i, state, "proj", kernels.linear(h, proj.weight, proj.bias))
    state.x = state.x + method.mlp_out(i, state, y)
    method.post_layer(i, state)


def _run_blocks(blocks: Any, method: Method, state: State, recompute: bool) -> None:
    last, narrows = len(blocks) - 1, lead_suffices(method)
    for i, block in enumerate(blocks):

        def run(state: State, i: int = i, block: Any = block) -> None:
            _run_block(i, block, method, state, lead_only=narrows and i == last)

        if recompute and torch.is_grad_enabled():
            _recomputed(run, state)
        else:
            run(state)


def _recomputed(run: Callable[[State], None], state: State) -> None:
    """`run(state)`, of which only the beginning is kept: the backward pass runs it once more."""
    start = replace(state, aux=dict(state.aux))

    def forward(x: Tensor) -> State:
        own = replace(start, x=x, aux=dict(start.aux))
        run(own)
        return own

    vars(state).update(vars(checkpoint(forward, state.x, use_reentrant=False)))


def encode_frames(
    clip: Any, method: Method, video: Tensor, mask: Tensor | None, recompute: bool = False
) -> Tensor:
    """Features of frames, not normalised.

    Args:
        clip: open_clip's CLIP.
        method: whose hooks are called.
        video: (B, F, 3, H, W), normalised pixels.
        mask: (B, F), nonzero where a frame counts; reaches the hooks only.
        recompute: keep only the blocks' inputs for the backward pass (activation checkpointing).

    Returns:
        (B, n, D), where n = F unless the method reads out something else.
    """
    visual = clip.visual
    batch, frames = video.shape[:2]
    patches = _embed_patches(visual.conv1, video.flatten(0, 1))
    cls = visual.class_embedding.expand(len(patches), 1, -1)
    x = torch.cat([cls, patches], dim=1) + visual.positional_embedding
    state = State(VISION, x, batch, frames, frame_mask=mask)
    method.begin(state)
    method.embed(state, "before")
    state.x = visual.ln_pre(state.x)
    method.embed(state, "after")
    _run_blocks(visual.transformer.resblocks, method, state, recompute)
    return method.readout(state, lambda x: visual.ln_post(x) @ visual.proj)


def _embed_patches(conv: Any, pictures: Tensor) -> Tensor:
    """The patches of pictures (N, 3, H, W) as tokens (N, patches, width).

    Patches do not overlap, so that their convolution is one matrix product.
    """
    side = conv.kernel_size[0]
    rows = pictures.unflatten(3, (-1, side)).unflatten(2, (-1, side))  # N, 3, h, side, w, side
    patches = rows.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    return kernels.linear(patches, conv.weight.flatten(1))


def encode_texts(clip: Any, method: Method, texts: TextInput, recompute: bool = False) -> Tensor:
    """Features (B, n, D) of n captions per sample, not normalised; `recompute` as for frames."""
    batch, groups = texts.ids.shape[:2]
    ids = texts.ids.flatten(0, 1)
    state = State(
        TEXT,
        clip.token_embedding(ids),
        batch,
        groups,
        eot=ids.argmax(-1),  # the end mark has the largest id
        key_mask=texts.mask.flatten(0, 1).bool(),
        causal=True,
        joint=texts.joint,
    )
    method.begin(state)
    method.embed(state, "before")
    state.x = state.x + clip.positional_embedding[: state.x.shape[1]]
    method.embed(state, "after")
    _run_blocks(clip.transformer.resblocks, method, state, recompute)
    return method.readout(state, lambda x: clip.ln_final(x) @ clip.text_projection)
