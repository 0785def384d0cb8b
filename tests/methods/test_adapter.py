"""Adapter against its definition, and its exact size."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from discovla.models.backbone import meta_backbone
from discovla.models.retriever import Retriever, build_retriever
from tests.methods import naive
from tests.models import tiny


def adapted(model: Retriever, tower: str, x: torch.Tensor, sees: naive.Sees) -> torch.Tensor:
    """All blocks of a tower over tokens (T, D), each MLP followed by its bottleneck."""
    clip = model.clip.visual if tower == "vision" else model.clip
    for block, part in zip(clip.transformer.resblocks, model.method.adapters[tower], strict=True):
        q, k, v = naive.projections(block, x)
        x = x + block.attn.out_proj(naive.mix(q, k, v, block.attn.num_heads, sees))
        rows = []
        for token in x:
            y = block.mlp(block.ln_2(token))
            hidden = naive.quick(part.down_weight @ y + part.down_bias)
            rows.append(token + y + part.up_weight @ hidden + part.up_bias)
        x = torch.stack(rows)
    return x


@torch.no_grad()
def test_towers_follow_the_definition() -> None:
    model, batch = tiny.model("adapter", bottleneck=4), tiny.batch(2)
    out = model(batch)
    for n in range(2):
        frames = []
        for f, image in enumerate(batch["video"][n]):
            x = model.clip.visual.ln_pre(naive.patch_tokens(model.clip, image))
            x = adapted(model, "vision", x, naive.everything(len(x)))
            frames.append(naive.frame_feature(model.clip, x[0]))
            torch.testing.assert_close(out.frames[n, f], frames[-1], **naive.CLOSE)
        torch.testing.assert_close(out.video[n], naive.mean_of_normalised(frames), **naive.CLOSE)
        x = naive.words_of(model.clip, batch["text_ids"][n])
        x = adapted(model, "text", x + model.clip.positional_embedding[: len(x)], naive.up_to)
        torch.testing.assert_close(
            out.text[n], naive.text_feature(model.clip, x[-1]), **naive.CLOSE
        )


def test_the_way_up_starts_at_zero() -> None:
    method = tiny.model("adapter", shaken=False, bottleneck=4).method
    for name, tensor in method.named_parameters():
        assert bool(tensor.any()) == ("down" in name), name


@pytest.mark.parametrize("architecture", ["ViT-B-32-quickgelu", "ViT-B-16-quickgelu"])
@pytest.mark.parametrize("changes", [{}, {"frames": 32, "words": 64}])
def test_counts_at_real_size(architecture: str, changes: dict[str, Any]) -> None:
    settings = tiny.settings("adapter", bottleneck=8, **{"frames": 12, "words": 32, **changes})
    model = build_retriever(settings, meta_backbone(architecture))
    trained = [p.numel() for p in model.parameters() if p.requires_grad]
    assert (sum(trained), len(trained)) == (261_312, 96)
    assert model.method.uncounted() == model.method.inert() == []
