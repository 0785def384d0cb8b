"""When the last block of a tower need only be computed for the tokens that are read out.

Features are made of class tokens or of the end-of-text token of every caption. In the last
block the others serve as keys and values; their queries, output projection and MLP go nowhere,
unless a method looks at them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from discovla.models.hooks import Method, State

BEHIND_KEYS = (*("attend", "attn_out", "mid_layer", "mlp_out", "inner", "post_layer", "readout"),)
"""Hooks that see tokens after the keys and values of a block are made.

One that a method overrides counts as needing every token, unless it is marked `tokenwise`; so does
an override of one that is.
"""


def lead_suffices(method: Method) -> bool:
    """Whether no hook of a method needs more than the lead tokens behind the keys."""
    return not method.needs_every_token() and all(_is_tokenwise(method, h) for h in BEHIND_KEYS)


def _is_tokenwise(method: Method, hook: str) -> bool:
    function = getattr(getattr(method, hook), "__func__", None)
    return function is getattr(Method, hook) or getattr(function, "tokenwise", False)


def can_narrow(state: State) -> bool:
    """Whether no bias of the attention is made for the queries of all tokens."""
    return state.key_bias is None or state.key_bias.dim() == 2


def narrow(state: State, q: Tensor) -> tuple[Tensor, Tensor | None]:
    """Leave only the lead tokens in `state.x`, at the front of every group; keys stay all.

    Args:
        state: changed in place.
        q: (N, T, D) queries of the block.

    Returns:
        Queries (N, n_lead, D), and in a text the places (N,) that they have among the keys.
    """
    if state.eot is None:
        state.x = state.x[:, : state.n_lead]
        return q[:, : state.n_lead], None
    places = state.eot
    rows = torch.arange(len(q), device=q.device)
    state.x, q = state.x[rows, places][:, None], q[rows, places][:, None]
    state.eot = torch.zeros_like(places)
    return q, places
