"""torch's fused attention, adding in the same order every time where determinism is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_DEPTH = 8
"""Nodes of the graph between the attention and its result: a cut of padding at most."""


def fused_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False
) -> Tensor:
    """`F.scaled_dot_product_attention`, deterministic under `use_deterministic_algorithms`.

    CUDA's fused kernels have a backward pass that adds in a fixed order, but with `warn_only`
    torch warns and takes the other one; it also takes cuDNN's, which has no fixed order. So
    `warn_only` is off while the kernel is chosen and while its backward pass runs.
    """
    with _strictly():
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    node = _attention_behind(found.grad_fn) if _only_warns() else None
    if node is not None:
        with_it = ExitStack()
        node.register_prehook(lambda grads: with_it.enter_context(_strictly()))
        node.register_hook(lambda inputs, outputs: with_it.close())
    return found


def _only_warns() -> bool:
    enabled = torch.are_deterministic_algorithms_enabled()
    return enabled and torch.is_deterministic_algorithms_warn_only_enabled()


@contextmanager
def _strictly() -> Iterator[None]:
    """What would only warn is strict while the block runs."""
    if not _only_warns():
        yield
        return
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True, warn_only=True)


def _attention_behind(node: Any) -> Any:
    """The node of a fused attention that a result comes from; None where it is plain products."""
    for _ in range(_DEPTH):
        if node is None or "ScaledDotProduct" in node.name():
            return node
        node = node.next_functions[0][0] if node.next_functions else None
    return None
