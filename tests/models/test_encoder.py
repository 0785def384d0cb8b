"""Our forward pass equals open_clip's own."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.models import tiny

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def own_text_features(clip: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """open_clip's text features; it only takes captions as long as its positional table."""
    return clip.encode_text(F.pad(ids, (0, tiny.CONTEXT - ids.shape[1])))  # type: ignore[operator]


@torch.no_grad()
def test_without_hooks_equal_to_open_clip() -> None:
    model, batch = tiny.model("zero_shot"), tiny.batch()
    text = model.encode_text(batch["text_ids"], batch["text_mask"])
    torch.testing.assert_close(text, own_text_features(model.clip, batch["text_ids"]), **CLOSE)
    frames = model.encode_video(batch["video"]).frames
    own = model.clip.encode_image(batch["video"].flatten(0, 1))
    torch.testing.assert_close(frames.flatten(0, 1), own, **CLOSE)


@torch.no_grad()
def test_lora_equals_clip_before_training() -> None:
    plain, lora = tiny.model("zero_shot"), tiny.model("lora", shaken=False)
    batch = tiny.batch()
    before, after = plain(batch), lora(batch)
    assert torch.equal(before.text, after.text)
    assert torch.equal(before.frames, after.frames)


@torch.no_grad()
def test_lora_equals_open_clip_with_merged_weights() -> None:
    model, batch = tiny.model("lora"), tiny.batch()
    out = model(batch)
    for tower, blocks in (
        ("vision", model.clip.visual.transformer.resblocks),
        ("text", model.clip.transformer.resblocks),
    ):
        for i, block in enumerate(blocks):
            low_rank = model.method.lora[tower][i]
            block.attn.in_proj_weight += low_rank.b @ low_rank.a
    own = own_text_features(model.clip, batch["text_ids"])
    torch.testing.assert_close(out.text, own, rtol=1e-4, atol=1e-4)
    own = model.clip.encode_image(batch["video"].flatten(0, 1))
    torch.testing.assert_close(out.frames.flatten(0, 1), own, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_padding_does_not_reach_a_caption() -> None:
    """The end token precedes every pad and attention is causal: length and pads are irrelevant."""
    model, batch = tiny.model("lora"), tiny.batch(length=10)
    ids, mask = batch["text_ids"], batch["text_mask"]
    longest = int(mask.sum(1).max())
    short = model.encode_text(ids[:, :longest], mask[:, :longest])
    torch.testing.assert_close(model.encode_text(ids, mask), short, **CLOSE)
    filled = ids.masked_fill(~mask, 5)
    torch.testing.assert_close(model.encode_text(filled, mask), short, **CLOSE)
