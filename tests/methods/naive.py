"""CLIP and its parts by definition: one sample, one frame, one token at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from discovla.methods.parts import Block

Sees = Callable[[int], Sequence[int]]
"""Place of a token → places of the tokens that it attends to."""
CLOSE = {"rtol": 1e-4, "atol": 2e-5}


def quick(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-1.702 * x))


def everything(count: int) -> Sees:
    return lambda t: range(count)


def up_to(t: int) -> Sequence[int]:
    return range(t + 1)


def mix(q: Tensor, k: Tensor, v: Tensor, heads: int, sees: Sees) -> Tensor:
    """Attention of tokens (T, D), before the output projection."""
    width = q.shape[1] // heads
    rows = []
    for t in range(len(q)):
        places = list(sees(t))
        parts = []
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            logits = torch.stack([q[t, part] @ k[s, part] for s in places]) / width**0.5
            weights = logits.softmax(0)
            parts.append(sum(w * v[s, part] for w, s in zip(weights, places, strict=True)))
        rows.append(torch.cat(parts))
    return torch.stack(rows)


def projections(block: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of tokens (T, D) that go into a block."""
    h = block.ln_1(x)
    width = x.shape[1]
    weight, bias = block.attn.in_proj_weight, block.attn.in_proj_bias
    q, k, v = (
        h @ weight[n * width : (n + 1) * width].T + bias[n * width : (n + 1) * width]
        for n in range(3)
    )
    return q, k, v


def run_block(block: Any, x: Tensor, sees: Sees) -> Tensor:
    """A block of CLIP over tokens (T, D)."""
    q, k, v = projections(block, x)
    x = x + block.attn.out_proj(mix(q, k, v, block.attn.num_heads, sees))
    return x + block.mlp(block.ln_2(x))


def run_trained_block(block: Block, x: Tensor, sees: Sees) -> Tensor:
    """A block of `discovla.methods.parts` over tokens (T, D)."""
    q, k, v = block.qkv(block.ln_1(x)).chunk(3, -1)
    x = x + block.out(mix(q, k, v, block.heads, sees))
    return x + block.proj(quick(block.fc(block.ln_2(x))))


def patch_tokens(clip: Any, image: Tensor) -> Tensor:
    """Class token and patches (1 + N, D) of a frame (3, H, W) with their positions."""
    visual = clip.visual
    size = visual.patch_size[0]
    weight = visual.conv1.weight.flatten(1)
    tokens = [visual.class_embedding]
    for top in range(0, image.shape[1], size):
        for left in range(0, image.shape[2], size):
            tokens.append(weight @ image[:, top : top + size, left : left + size].flatten())
    return torch.stack(tokens) + visual.positional_embedding


def frame_feature(clip: Any, token: Tensor) -> Tensor:
    return clip.visual.ln_post(token) @ clip.visual.proj


def text_feature(clip: Any, token: Tensor) -> Tensor:
    return clip.ln_final(token) @ clip.text_projection


def words_of(clip: Any, ids: Tensor) -> Tensor:
    """Embedded tokens (n, D) of a caption (L) from its start to its end mark."""
    return clip.token_embedding(ids[: int(ids.argmax()) + 1])


def renewed(x: Tensor, prompts: Tensor) -> Tensor:
    """Tokens with what stands in the place of prompts replaced by `prompts` (n, D)."""
    return torch.cat([x[:1], prompts, x[1 + len(prompts) :]])


def prompted_text(clip: Any, ids: Tensor, prompts: Sequence[Tensor], moved: bool = True) -> Tensor:
    """Feature of a caption whose block i sees `prompts[i]` (n, D) behind the start mark.

    `moved`: prompts take rows of the positional table and words move on; else words keep theirs.
    """
    words, table = words_of(clip, ids), clip.positional_embedding
    if moved:
        x = torch.cat([words[:1], prompts[0], words[1:]])
        x = torch.stack([token + table[row] for row, token in enumerate(x)])
    else:
        words = torch.stack([token + table[row] for row, token in enumerate(words)])
        x = torch.cat([words[:1], prompts[0], words[1:]])
    for i, block in enumerate(clip.transformer.resblocks):
        x = run_block(block, renewed(x, prompts[i]) if i else x, up_to)
    return text_feature(clip, x[-1])


def prompted_frame(clip: Any, image: Tensor, prompts: Sequence[Tensor]) -> Tensor:
    """Feature of a frame whose block i sees `prompts[i]` (n, D) behind the class token."""
    x = patch_tokens(clip, image)
    x = clip.visual.ln_pre(torch.cat([x[:1], prompts[0], x[1:]]))
    for i, block in enumerate(clip.visual.transformer.resblocks):
        x = run_block(block, renewed(x, prompts[i]) if i else x, everything(len(x)))
    return frame_feature(clip, x[0])


def mean_of_normalised(frames: Tensor) -> Tensor:
    """(F, D) to (D)."""
    return sum(F.normalize(frame, dim=0) for frame in frames) / len(frames)  # type: ignore[return-value]
