"""LoRA added to CLIP's own weights: the same features at inference without the extra products."""

from __future__ import annotations

import torch
from torch import nn

from discovla.errors import UserError
from discovla.methods.lora import LoRA
from discovla.models.hooks import TEXT, VISION, Method
from discovla.models.retriever import Retriever


@torch.no_grad()
def merge_lora(retriever: Retriever) -> None:
    """Put W + b a in the place of every fused projection W; what else the method does stays.

    The sum is formed in float64 and rounded once, so that features differ from the unmerged ones
    by the rounding of float32. The model is for inference from then on: nothing of it is trained,
    and no adapter fits it any more.

    Args:
        retriever: changed in place, its CLIP too.

    Raises:
        UserError: a method without LoRA, or one whose LoRA was merged before.
    """
    method = retriever.method
    check_mergeable(method)
    blocks = {
        VISION: retriever.clip.visual.transformer.resblocks,
        TEXT: retriever.clip.transformer.resblocks,
    }
    for tower, parts in method.lora.items():
        for block, part in zip(blocks[tower], parts, strict=True):  # type: ignore[arg-type]
            weight = block.attn.in_proj_weight
            weight.copy_(weight.double() + part.b.double() @ part.a.double())
    method.lora = nn.ModuleDict()
    retriever.requires_grad_(False)


def check_mergeable(method: Method) -> None:
    """Refuse a method whose queries, keys and values are not those of (unmerged) LoRA."""
    name, kind = method.settings.method, type(method)
    if not isinstance(method, LoRA) or kind.qkv is not LoRA.qkv or kind.inner is not Method.inner:
        raise UserError(
            f"method {name} has no LoRA that could be merged into CLIP's weights; use the run as "
            "it is"
        )
    if not method.lora:
        raise UserError(f"the LoRA of this {name} model is merged already")
