"""Attention to a prefix that many rows share, and to each row's own tokens, computed apart.

Softmax attention over the union of two sets of keys is the mean of the attention over each set,
weighted by how much of the softmax's sum lies in it (its log-sum-exp). So the keys and values of a
prefix are stored and read once, however many rows look at them.

The function is registered with transformers under `NAME`. A pass, see
`discovla.captioning.llava.passes`, travels to it as the keyword `shared_pass`; without one it is
transformers' own `sdpa`.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "discovla_shared_prefix"
#: Scores that the plain way holds at once; 1 GB in fp32.
_SCORES_AT_ONCE = 2**28


class Pass(Protocol):
    """What one pass through the language model does at each attention layer."""

    def attend(
        self, module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """Attention of `query` (1 or F, heads, tokens, width); (same, tokens, heads, width)."""
        ...


def shared_prefix_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    shared_pass: Pass | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls; shapes as in its `AttentionInterface`."""
    if shared_pass is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **others
        )
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    return shared_pass.attend(module, query, key, value, scaling), None


def register() -> None:
    """Make `NAME` known to transformers; again does no harm."""
    AttentionInterface.register(NAME, shared_prefix_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float,
    *,
    bias: Tensor | None = None,
    causal: bool = False,
) -> tuple[Tensor, Tensor]:
    """Attention, and the log of the softmax's sum.

    Args:
        query: (B, H, Q, D).
        key: (B, H or a divisor of H, K, D); K may be 0.
        value: as `key`.
        scaling: factor of the scores.
        bias: added to the scores, (B, 1, 1, K), in the dtype of `query`.
        causal: query i sees keys up to i only; Q = K.

    Returns:
        (B, H, Q, D) in the dtype of `query`, and (B, H, Q) in float32 or better.
    """
    if key.shape[2] == 0:
        nothing = torch.full(query.shape[:3], -torch.inf, device=query.device)
        return torch.zeros_like(query), nothing
    if query.device.type == "cpu":
        # Public attention does not tell the sum; the operators behind it do.
        out, total = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, causal, attn_mask=bias, scale=scaling
        )
        return out, total
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    if bias is None and _has_flash(query):
        out, total, *_ = torch.ops.aten._scaled_dot_product_flash_attention(
            query, key, value, 0.0, causal, False, scale=scaling
        )
        return out, total
    return plain_attention(query, key, value, scaling, bias=bias, causal=causal)


def plain_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float,
    *,
    bias: Tensor | None = None,
    causal: bool = False,
) -> tuple[Tensor, Tensor]:
    """`attention` by its definition, for equal numbers of heads; the softmax is in float32."""
    scores_of_one = query.shape[1] * query.shape[2] * key.shape[2]
    step = max(1, _SCORES_AT_ONCE // scores_of_one)
    outs, totals = [], []
    for start in range(0, len(query), step):
        part = slice(start, start + step)
        scores = (query[part] @ key[part].transpose(2, 3)).float() * scaling
        if bias is not None:
            scores = scores + bias[part].float()
        if causal:
            unseen = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(unseen, -torch.inf)
        total = scores.logsumexp(-1)
        outs.append((scores - total[..., None]).exp().to(value.dtype) @ value[part])
        totals.append(total)
    return torch.cat(outs), torch.cat(totals)


def merge(first: Tensor, first_total: Tensor, second: Tensor, second_total: Tensor) -> Tensor:
    """Attention over the union of two sets of keys, from `attention` over each.

    Args:
        first: (…, D).
        first_total: log-sum-exp of `first`, (…); must be finite.
        second: (…, D).
        second_total: log-sum-exp of `second`, (…); may be minus infinity.
    """
    wide = torch.promote_types(first.dtype, torch.float32)
    weight = torch.sigmoid(second_total.to(wide) - first_total.to(wide))[..., None]
    return torch.lerp(first.to(wide), second.to(wide), weight).to(first.dtype)


def _has_flash(query: Tensor) -> bool:
    """Whether the fused kernel takes such queries: half precision, on Ampere or later."""
    half = query.dtype in (torch.bfloat16, torch.float16)
    width = query.shape[-1]
    fits = query.device.type == "cuda" and half and width % 8 == 0 and width <= 256
    return fits and torch.cuda.get_device_capability(query.device) >= (8, 0)
