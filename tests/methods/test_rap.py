"""RAP's parts against loops: modulation, the choice of patches, displacement; exact size."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from discovla.methods.rap import choose, displace
from discovla.models.backbone import build_backbone, meta_backbone
from discovla.models.retriever import Retriever, build_retriever
from tests.methods import naive
from tests.models import tiny

OPTIONS = {"modulation_rank": 2, "displaced": 0.5}
OPS = ("ln_1", "qkv", "out", "ln_2", "fc", "proj")


def model_of(grid: int = 4, **changes: Any) -> Retriever:
    """RAP over a random CLIP with grid² patches per frame."""
    vision = {**tiny.CONFIG["vision_cfg"], "image_size": 8 * grid}
    backbone = build_backbone({**tiny.CONFIG, "vision_cfg": vision})
    tiny.shake(backbone.clip)
    model = build_retriever(tiny.settings("rap", **{**OPTIONS, **changes}), backbone)
    tiny.shake(model.method)
    with torch.no_grad():
        for offsets in model.method.offsets:
            offsets.weight *= 4
    return model


def pixels(model: Retriever, samples: int, frames: int) -> Tensor:
    side = model.clip.visual.image_size[0]
    generator = torch.Generator().manual_seed(3)
    return torch.randn(samples, frames, 3, side, side, generator=generator)


def interpolated(volume: Tensor, at: list[float]) -> Tensor:
    """The value (D) of a volume (F, H, W, D) at a place; the border goes on beyond itself."""
    inside = [min(max(p, 0.0), n - 1.0) for p, n in zip(at, volume.shape, strict=False)]
    low = [math.floor(p) for p in inside]
    value = torch.zeros(volume.shape[-1])
    for corner in range(8):
        place, weight = [], 1.0
        for axis in range(3):
            up = corner >> axis & 1
            share = inside[axis] - low[axis]
            place.append(min(low[axis] + up, volume.shape[axis] - 1))
            weight *= share if up else 1 - share
        value = value + weight * volume[tuple(place)]
    return value


def naive_displace(x: Tensor, chosen: Tensor, offsets: Tensor) -> Tensor:
    """One video: tokens (F, 1 + H·W, D), places and offsets (F, n) and (F, n, 3)."""
    side = math.isqrt(x.shape[1] - 1)
    volume, moved = x[:, 1:].reshape(len(x), side, side, -1), x.clone()
    for f in range(len(x)):
        for patch, offset in zip(chosen[f].tolist(), offsets[f].tolist(), strict=True):
            row, column = divmod(patch - 1, side)
            at = [f + offset[0], row + offset[1], column + offset[2]]
            moved[f, patch] = interpolated(volume, at)
    return moved


offset = st.one_of(
    st.floats(-6, 6, width=32, allow_subnormal=False),
    st.integers(-3, 3).map(float),
)


@given(st.data(), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_displacement_is_trilinear_interpolation(
    data: st.DataObject, videos: int, frames: int, side: int
) -> None:
    generator = torch.Generator().manual_seed(videos + 3 * frames + 9 * side)
    x = torch.randn(videos * frames, 1 + side**2, 2, generator=generator)
    count = data.draw(st.integers(1, side**2))
    order = torch.rand(len(x), side**2, generator=generator).argsort(1)
    chosen = order[:, :count] + 1
    drawn = data.draw(st.lists(offset, min_size=3 * count, max_size=3 * count))
    offsets = torch.tensor(drawn).reshape(1, count, 3).repeat(len(x), 1, 1)
    offsets[1:] *= torch.linspace(1, -1, len(x))[1:, None, None]
    found = displace(x, chosen, offsets, frames)
    for v in range(videos):
        own = slice(v * frames, (v + 1) * frames)
        expected = naive_displace(x[own], chosen[own], offsets[own])
        torch.testing.assert_close(found[own], expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("frames", [1, 3])
def test_offsets_of_zero_change_nothing(frames: int) -> None:
    x = torch.randn(2 * frames, 10, 4)
    chosen = torch.stack([torch.randperm(9)[:5] + 1 for _ in x])
    found = displace(x, chosen, torch.zeros(*chosen.shape, 3), frames)
    torch.testing.assert_close(found, x, rtol=0, atol=1e-5)
    assert torch.equal(found[:, 0], x[:, 0])


def test_whole_steps_take_neighbours() -> None:
    x = torch.randn(2, 5, 3)
    offsets = torch.tensor([[[1.0, 0, 0]], [[0, 1.0, 1.0]]])
    found = displace(x, torch.tensor([[2], [1]]), offsets, 2)
    torch.testing.assert_close(found[0, 2], x[1, 2])  # the next frame
    torch.testing.assert_close(found[1, 1], x[1, 4])  # one down, one to the right


def test_offsets_learn_from_zero_where_both_neighbours_exist() -> None:
    x = torch.randn(3, 10, 4)
    offsets = torch.zeros(3, 9, 3, requires_grad=True)
    displace(x, torch.arange(1, 10).expand(3, -1), offsets, 3).square().sum().backward()
    assert offsets.grad is not None
    learns = offsets.grad.reshape(3, 3, 3, 3) != 0  # frame, row, column, axis
    for f in range(3):
        for row in range(3):
            for column in range(3):
                inside = [f == 1, row == 1, column == 1]
                assert learns[f, row, column].tolist() == inside


def test_the_patches_most_like_the_class_token_are_chosen() -> None:
    h = torch.randn(3, 10, 4, generator=torch.Generator().manual_seed(5))
    found = choose(h, 4)
    for n in range(3):
        likeness = {p: float(F.cosine_similarity(h[n, p], h[n, 0], dim=0)) for p in range(1, 10)}
        assert found[n].tolist() == sorted(likeness, key=likeness.__getitem__, reverse=True)[:4]


def naive_video(model: Retriever, video: Tensor) -> Tensor:
    """Features (F, D) of the frames (F, 3, H, W) of one video."""
    visual, method = model.clip.visual, model.method
    x = torch.stack([visual.ln_pre(naive.patch_tokens(model.clip, image)) for image in video])
    for i, block in enumerate(visual.transformer.resblocks):
        q, k, v = (
            torch.stack(t) for t in zip(*(naive.projections(block, f) for f in x), strict=True)
        )
        normed = block.ln_1(x)
        chosen, offsets = [], []
        for h in normed:
            likeness = [float(F.cosine_similarity(p, h[0], dim=0)) for p in h[1:]]
            order = sorted(range(len(likeness)), key=likeness.__getitem__, reverse=True)
            chosen.append([p + 1 for p in order[: method.displaced]])
            linear = method.offsets[i]
            offsets.append(torch.stack([linear.weight @ h[p] + linear.bias for p in chosen[-1]]))
        k, v = (naive_displace(t, torch.tensor(chosen), torch.stack(offsets)) for t in (k, v))
        y = torch.stack(
            [
                naive.mix(q[f], k[f], v[f], block.attn.num_heads, naive.everything(x.shape[1]))
                for f in range(len(x))
            ]
        )
        x = x + modulated(method.low_rank[i]["attention"], block.attn.out_proj(y))
        x = x + modulated(method.low_rank[i]["mlp"], block.mlp(block.ln_2(x)))
    return torch.stack([naive.frame_feature(model.clip, f[0]) for f in x])


def modulated(part: Any, y: Tensor) -> Tensor:
    """Every token (F, T, D) of frame f scaled and shifted by what belongs to f."""
    (scale_left, shift_left), (scale_right, shift_right) = part.frames.weight, part.features.weight
    rows = []
    for f, tokens in enumerate(y):
        scale = 1 + sum(a * b for a, b in zip(scale_left[f], scale_right, strict=True))
        shift = sum(a * b for a, b in zip(shift_left[f], shift_right, strict=True))
        rows.append(torch.stack([token * scale + shift for token in tokens]))
    return torch.stack(rows)


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_video_follows_the_definition(frames: int, share: float) -> None:
    model = model_of(frames=frames, displaced=share)
    video = pixels(model, 2, frames)
    found = model.encode_video(video).frames
    for n in range(2):
        torch.testing.assert_close(found[n], naive_video(model, video[n]), rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_text_follows_the_definition() -> None:
    model, batch = model_of(), tiny.batch(2)
    found, clip = model.encode_text(batch["text_ids"], batch["text_mask"]), model.clip
    for n in range(2):
        x = naive.words_of(clip, batch["text_ids"][n])
        x = x + clip.positional_embedding[: len(x)]
        for block, parts in zip(clip.transformer.resblocks, model.method.text, strict=True):
            ln_1, qkv, out, ln_2, fc, proj = (
                lambda y, part=parts[op]: y * part.scale + part.shift for op in OPS
            )
            h = ln_1(block.ln_1(x))
            q, k, v = qkv(h @ block.attn.in_proj_weight.T + block.attn.in_proj_bias).chunk(3, -1)
            y = naive.mix(q, k, v, block.attn.num_heads, naive.up_to)
            x = x + out(block.attn.out_proj(y))
            h = naive.quick(fc(block.mlp.c_fc(ln_2(block.ln_2(x)))))
            x = x + proj(block.mlp.c_proj(h))
        torch.testing.assert_close(found[n], naive.text_feature(clip, x[-1]), **naive.CLOSE)


@torch.no_grad()
def test_without_offsets_nothing_is_displaced() -> None:
    still, none = model_of(), model_of(displaced=0.0)
    for offsets in still.method.offsets:
        offsets.weight.zero_()
        offsets.bias.zero_()
    assert len(none.method.offsets) == 0
    none.method.load_state_dict(still.method.state_dict(), strict=False)
    video = pixels(still, 2, 3)
    expected = none.encode_video(video).frames
    torch.testing.assert_close(still.encode_video(video).frames, expected, **naive.CLOSE)


@pytest.mark.parametrize("architecture", ["ViT-B-32-quickgelu", "ViT-B-16-quickgelu"])
@pytest.mark.parametrize(("frames", "count"), [(12, 1_061_412), (32, 1_084_452)])
def test_counts_at_real_size(architecture: str, frames: int, count: int) -> None:
    options = {"modulation_rank": 24, "displaced": 0.25, "frames": frames, "words": 32}
    model = build_retriever(tiny.settings("rap", **options), meta_backbone(architecture))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == count
    assert model.method.displaced == {"ViT-B-32-quickgelu": 12}.get(architecture, 49)
    assert model.method.uncounted() == model.method.inert() == []
