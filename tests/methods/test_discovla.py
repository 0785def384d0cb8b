"""IVFusion against a definition with loops, and its properties."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from discovla.models.hooks import State
from tests.models import tiny

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
KINDS = ["image", "video", "average", "ivfusion"]


def naive_attention(heads: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of (Tq, D) over (Tk, D), head by head."""
    width = queries.shape[1] // heads
    parts = []
    for head in range(heads):
        columns = slice(head * width, (head + 1) * width)
        logits = queries[:, columns] @ keys[:, columns].T / width**0.5
        parts.append(logits.softmax(-1) @ values[:, columns])
    return torch.cat(parts, 1)


def naive_top_block(model: Any, tower: str, i: int, x: Tensor, ends: list[int] | None) -> Tensor:
    """Eq. 5-7 and the rest of block i for one sample's groups x (F, T, D).

    `ends`: place of each caption's end token, nothing behind it being a word; None for frames.
    """
    resblocks = {"vision": model.clip.visual.transformer, "text": model.clip.transformer}[tower]
    block = resblocks.resblocks[i]
    low_rank, adapter = model.method.lora[tower][i], model.method.fusion[tower][str(i)]
    weight = block.attn.in_proj_weight + low_rank.b @ low_rank.a
    groups = [F.linear(block.ln_1(g), weight, block.attn.in_proj_bias).chunk(3, -1) for g in x]
    last = ends or [g.shape[0] - 1 for g in x]
    every_key = torch.cat([k[: end + 1] for (_, k, _), end in zip(groups, last, strict=True)])
    every_value = torch.cat([v[: end + 1] for (_, _, v), end in zip(groups, last, strict=True)])
    heads, project = block.attn.num_heads, block.attn.out_proj
    result = []
    for g, (q, k, v) in enumerate(groups):
        rows = []
        for t in range(len(q)):
            seen = slice(0, t + 1) if ends else slice(None)
            rows.append(project(naive_attention(heads, q[t : t + 1], k[seen], v[seen])))
        y = torch.cat(rows)
        lead = ends[g] if ends else 0
        across = project(naive_attention(heads, q[lead : lead + 1], every_key, every_value))[0]
        hidden = F.linear(y[lead], adapter.down_weight, adapter.down_bias)
        hidden = hidden * torch.sigmoid(1.702 * hidden)
        y[lead] = across + F.linear(hidden, adapter.up_weight, adapter.up_bias)
        z = x[g] + y
        result.append(z + block.mlp(block.ln_2(z)))
    return torch.stack(result)


def record(model: Any, run: Any) -> dict[int, tuple[Tensor, Tensor, State]]:
    """x before and after every block of a pass."""
    seen: dict[int, tuple[Tensor, Tensor, State]] = {}
    before: dict[int, Tensor] = {}
    method = model.method
    method.pre_layer = lambda i, state: before.__setitem__(i, state.x)
    method.post_layer = lambda i, state: seen.__setitem__(i, (before[i], state.x, state))
    run()
    del method.pre_layer, method.post_layer
    return seen


@torch.no_grad()
def test_vision_blocks_follow_the_equations() -> None:
    model, batch = tiny.model(), tiny.batch()
    seen = record(model, lambda: model.encode_video(batch["video"]))
    for i in (1, 2):  # the top two of three
        x, y = (t.unflatten(0, (4, 3)) for t in seen[i][:2])
        for sample in range(4):
            expected = naive_top_block(model, "vision", i, x[sample], None)
            torch.testing.assert_close(y[sample], expected, **CLOSE)


@torch.no_grad()
def test_text_blocks_follow_the_equations() -> None:
    model, batch = tiny.model(), tiny.batch()
    ids, mask = batch["frame_text_ids"], batch["frame_text_mask"]
    seen = record(model, lambda: model.encode_frame_texts(ids, mask))
    for i in (2, 3):  # the top two of four
        x, y = (t.unflatten(0, (4, 3)) for t in seen[i][:2])
        for sample in range(4):
            ends = [int(m.sum()) - 1 for m in mask[sample]]
            expected = naive_top_block(model, "text", i, x[sample], ends)
            for caption, end in enumerate(ends):
                found = y[sample, caption, : end + 1]
                torch.testing.assert_close(found, expected[caption, : end + 1], **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["video", "average"])
def test_one_frame_makes_both_branches_equal(kind: str) -> None:
    """With F = 1 a sample's tokens are its frame's tokens: every kind is Eq. 5."""
    batch = tiny.batch(frames=1)
    plain, other = tiny.model(attention="image"), tiny.model(attention=kind)
    a, b = plain(batch), other(batch)
    torch.testing.assert_close(a.frames, b.frames, **CLOSE)
    torch.testing.assert_close(a.frame_texts, b.frame_texts, **CLOSE)


@torch.no_grad()
def test_one_frame_before_training_equals_clip() -> None:
    """The adapter starts at zero and drops c(1); with F = 1, c(2) = c(1)."""
    batch = tiny.batch(frames=1)
    fused, clip = tiny.model(shaken=False), tiny.model("zero_shot")
    torch.testing.assert_close(fused(batch).video, clip(batch).video, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_order_of_frames_and_captions_does_not_matter(kind: str) -> None:
    model, batch = tiny.model(attention=kind), tiny.batch()
    order = torch.tensor([2, 0, 1])
    moved = {
        n: t[:, order] if n.startswith(("video", "frame")) and n != "video_index" else t
        for n, t in batch.items()
    }
    a, b = model(batch), model(moved)
    torch.testing.assert_close(a.video, b.video, **CLOSE)
    torch.testing.assert_close(a.frames[:, order], b.frames, **CLOSE)
    torch.testing.assert_close(a.frame_texts[:, order], b.frame_texts, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["video", "average", "ivfusion"])
def test_top_blocks_see_the_whole_sample_but_no_other(kind: str) -> None:
    model, batch = tiny.model(attention=kind), tiny.batch()
    changed = {n: t.clone() for n, t in batch.items()}
    changed["video"][0, 1] += 1
    changed["frame_text_ids"][0, 1, 0] = 5
    a, b = model(batch), model(changed)
    for name in ("frames", "frame_texts"):
        before, after = getattr(a, name), getattr(b, name)
        assert (before[0] - after[0]).abs().amax(1).min() > 1e-3  # all three frames
        torch.testing.assert_close(before[1:], after[1:], **CLOSE)


@torch.no_grad()
def test_image_level_attention_is_lora() -> None:
    batch, lora = tiny.batch(), tiny.model("lora")
    image = tiny.model(attention="image")
    image.method.lora.load_state_dict(lora.method.lora.state_dict())
    assert torch.equal(image(batch).frames, lora(batch).frames)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_padding_of_pseudo_captions_has_no_effect(kind: str) -> None:
    model, batch = tiny.model(attention=kind), tiny.batch()
    ids, mask = batch["frame_text_ids"], batch["frame_text_mask"]
    filled = ids.masked_fill(~mask, 5)
    plain = model.encode_frame_texts(ids, mask)
    torch.testing.assert_close(model.encode_frame_texts(filled, mask), plain, **CLOSE)


@torch.no_grad()
def test_inert_parameters_play_no_part_at_inference() -> None:
    model, batch = tiny.model(), tiny.batch()
    names = set(model.method.inert())
    assert len(names) == 2 * 4
    before = model(batch)
    for name, parameter in model.method.named_parameters():
        if name in names:
            parameter.add_(1)
    after = model(batch)
    assert torch.equal(before.text, after.text)
    assert torch.equal(before.video, after.video)
    assert not torch.allclose(before.frame_texts, after.frame_texts)


def test_video_caption_gives_text_adapters_no_gradient() -> None:
    model = tiny.model()
    model.loss(tiny.batch())["loss_vid"].backward()
    for name, parameter in model.method.named_parameters():
        assert (parameter.grad is None) == name.startswith("fusion.text.")
