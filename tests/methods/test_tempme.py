"""Matching, merging and joining against loops; the schedule; sizes; counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from discovla.errors import UserError
from discovla.methods.tempme import TempMe, join, largest_count, match, merge
from discovla.models.backbone import build_backbone, meta_backbone
from discovla.models.hooks import State
from discovla.models.retriever import Retriever, build_retriever
from tests.models import tiny

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
PATCH, HEAD = 8, 16
OFF = {
    "patch_merges": 0,
    "merge_layers": [],
    "merge_clips": [],
    "joined_percent": 0,
    "inner_percent": 0,
}
SMALL = {
    "frames": 4,
    "patch_merges": 2,
    "merge_layers": [1, 2],
    "merge_clips": [2, 2],
    "joined_percent": 30,
    "inner_percent": 10,
}
B32 = {
    "frames": 12,
    "patch_merges": 2,
    "merge_layers": [8, 9, 10],
    "merge_clips": [2, 2, 3],
    "joined_percent": 30,
    "inner_percent": 10,
}
B16 = {**B32, "patch_merges": 10, "joined_percent": 40, "inner_percent": 20}


def model_of(method: str, layers: int, grid: int, **changes: Any) -> Retriever:
    """A model over a narrow random CLIP with grid² patches per frame."""
    vision = {**tiny.CONFIG["vision_cfg"], "layers": layers, "image_size": grid * PATCH}
    backbone = build_backbone({**tiny.CONFIG, "vision_cfg": vision})
    tiny.shake(backbone.clip)
    model = build_retriever(tiny.settings(method, **changes), backbone)
    tiny.shake(model.method)
    return model


def pixels(model: Retriever, samples: int, frames: int) -> Tensor:
    side = model.clip.visual.image_size[0]
    generator = torch.Generator().manual_seed(3)
    return torch.randn(samples, frames, 3, side, side, generator=generator)


def batch_for(model: Retriever, samples: int, frames: int) -> dict[str, Tensor]:
    batch = tiny.batch(samples, frames)
    return {**batch, "video": pixels(model, samples, frames)}


def trace(model: Retriever, video: Tensor) -> list[tuple[int, int, int, Tensor]]:
    """Sequences per video, tokens, class tokens and sizes after every block."""
    seen = []

    def note(i: int, state: State) -> None:
        size = torch.ones(state.x.shape[:2]) if state.size is None else state.size
        seen.append((state.groups, state.x.shape[1], state.n_lead, size))

    model.method.post_layer = note  # type: ignore[method-assign, assignment]
    with torch.no_grad():
        model.encode_video(video)
    del model.method.post_layer
    return seen


def naive_match(metric: Tensor, lead: int, count: int) -> tuple[list[int], list[tuple[int, int]]]:
    """New order of one sequence (T, C), as old places, and pairs of old places (gone, into)."""
    if count == 0:
        return list(range(len(metric))), []
    sources = [t for t in range(lead, len(metric)) if t % 2 == 0]
    targets = [t for t in range(lead, len(metric)) if t % 2 == 1]
    best = []
    for s in sources:
        likeness = [float(F.cosine_similarity(metric[s], metric[t], dim=0)) for t in targets]
        nearest = max(range(len(targets)), key=likeness.__getitem__)
        best.append((likeness[nearest], s, targets[nearest]))
    pairs = [(s, t) for _, s, t in sorted(best, reverse=True)[:count]]
    gone = {s for s, _ in pairs}
    return [*range(lead), *(s for s in sources if s not in gone), *targets], pairs


def naive_merge(
    order: list[int], pairs: list[tuple[int, int]], x: Tensor, size: list[float]
) -> tuple[Tensor, list[float]]:
    """Weighted means of one sequence (T, D)."""
    rows, sizes = [], []
    for place in order:
        members = [place, *(s for s, t in pairs if t == place)]
        total = sum(size[m] for m in members)
        rows.append(sum(x[m] * size[m] for m in members) / total)
        sizes.append(total)
    return torch.stack(rows), sizes


@st.composite
def sequences(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, int, int]:
    """Metric, tokens, sizes, class tokens and a count that fits."""
    lead, patches = draw(st.integers(1, 6)), draw(st.integers(2, 13))
    count = draw(st.integers(1, patches // 2))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    metric, x = torch.randn(2, 3, lead + patches, 5, generator=generator)
    size = torch.randint(1, 9, x.shape[:2], generator=generator).float()
    size[:, :lead] = 1
    return metric, x, size, lead, count


@given(sequences())
def test_matching_and_merging_follow_the_definition(
    drawn: tuple[Tensor, Tensor, Tensor, int, int],
) -> None:
    metric, x, size, lead, count = drawn
    assert count <= largest_count(x.shape[1], lead)
    matching = match(metric, lead, count)
    merged, sizes = merge(matching, x, size)
    for n in range(len(x)):
        order, pairs = naive_match(metric[n], lead, count)
        assert matching.kept[n].tolist() == order
        assert matching.gone[n].tolist() == [s for s, _ in pairs]
        assert matching.into[n].tolist() == [order.index(t) for _, t in pairs]
        expected, expected_sizes = naive_merge(order, pairs, x[n], size[n].tolist())
        torch.testing.assert_close(merged[n], expected, **CLOSE)
        assert sizes[n].tolist() == expected_sizes
    assert torch.equal(merged[:, :lead], x[:, :lead])


def test_joined_clips_have_their_class_tokens_first() -> None:
    clips = torch.tensor([[[10, 11, 12]], [[20, 21, 22]], [[30, 31, 32]], [[40, 41, 42]]]).mT
    assert join(clips, 1, 2)[..., 0].tolist() == [
        [10, 20, 11, 12, 21, 22],
        [30, 40, 31, 32, 41, 42],
    ]
    sizes = torch.arange(8).reshape(2, 4)
    assert join(sizes, 2, 2).tolist() == [[0, 1, 4, 5, 2, 3, 6, 7]]


def naive_video(model: Retriever, video: Tensor) -> Tensor:
    """Features of the frames of one video (F, 3, H, W), sequence by sequence."""
    visual, method = model.clip.visual, model.method
    options = method.options
    clips = [(x, [1.0] * len(x)) for x in visual._embeds(video)]
    lead = 1
    for i, block in enumerate(visual.transformer.resblocks):
        low_rank = method.lora["vision"][i]
        weight = block.attn.in_proj_weight + low_rank.b @ low_rank.a
        if joins := i in options.merge_layers:
            factor = options.merge_clips[options.merge_layers.index(i)]
            positions = method.clip_position[str(i)].weight
            moved = [(x, x + positions[c], size) for c, (x, size) in enumerate(clips)]
            clips = []
            for first in range(0, len(moved), factor):
                raw, x, size = ([m[part] for m in moved[first:][:factor]] for part in range(3))
                x = torch.cat([c[:lead] for c in x] + [c[lead:] for c in x])
                raw = torch.cat([c[:lead] for c in raw] + [c[lead:] for c in raw])
                size = [n for c in size for n in c[:lead]] + [n for c in size for n in c[lead:]]
                budget = budget_of(options.joined_percent, len(x), lead * factor)
                clips.append(naive_merge(*naive_match(raw, lead * factor, budget), x, size))
            lead *= factor
        apart = i < min(options.merge_layers)
        assert not (joins and apart)
        for c, (x, size) in enumerate(clips):
            h = F.linear(block.ln_1(x), weight, block.attn.in_proj_bias)
            q, k, v = (t.reshape(len(x), -1, HEAD).transpose(0, 1) for t in h.chunk(3, -1))
            logits = q @ k.transpose(1, 2) / HEAD**0.5 + torch.tensor(size).log()
            y = (logits.softmax(-1) @ v).transpose(0, 1).flatten(1)
            x = x + block.attn.out_proj(y)
            inner = budget_of(options.inner_percent, len(x), lead)
            budget = min(options.patch_merges, (len(x) - lead) // 2) if apart else inner
            x, size = naive_merge(*naive_match(k.mean(0), lead, budget), x, size)
            clips[c] = (x + block.mlp(block.ln_2(x)), size)
    classes = torch.cat([x[:lead] for x, _ in clips])
    return visual.ln_post(classes) @ visual.proj


def budget_of(percent: int, tokens: int, lead: int) -> int:
    return min(percent * tokens // 100, (tokens - lead) // 2)


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"merge_clips": [2, 1]},  # two sequences stay
        {"merge_layers": [0, 2], "joined_percent": 90},
        {"patch_merges": 99},
        {"joined_percent": 0, "inner_percent": 20},  # no merge, no new order
    ],
)
def test_whole_tower_follows_the_definition(changes: dict[str, Any]) -> None:
    model = model_of("tempme", layers=4, grid=4, **{**SMALL, **changes})
    video = pixels(model, 2, 4)
    found = model.encode_video(video).frames
    for sample in range(2):
        torch.testing.assert_close(found[sample], naive_video(model, video[sample]), **CLOSE)


LOWER_B16 = [(12, tokens, 1) for tokens in range(187, 116, -10)]


@pytest.mark.parametrize(
    ("grid", "schedule", "expected"),
    [
        (
            7,
            B32,
            [(12, tokens, 1) for tokens in range(48, 33, -2)]
            + [(6, 44, 2), (3, 56, 4), (1, 107, 12), (1, 97, 12)],
        ),
        (14, B16, [*LOWER_B16, (6, 113, 2), (3, 109, 4), (1, 158, 12), (1, 127, 12)]),
        (14, {**B32, "patch_merges": 10}, [*LOWER_B16, (1, 321, 12)]),
    ],
    ids=["49 patches", "196 patches", "196 patches, 30-10"],
)
def test_numbers_of_tokens_are_the_published_ones(
    grid: int, schedule: dict[str, Any], expected: list[tuple[int, int, int]]
) -> None:
    model = model_of("tempme", layers=12, grid=grid, **schedule)
    seen = trace(model, pixels(model, 1, 12))
    numbers = [(groups, tokens, lead) for groups, tokens, lead, _ in seen]
    assert numbers[:8] == expected[:8]
    assert numbers[8 - len(expected) :] == expected[8:]
    for _, _, lead, size in seen:
        assert size.sum() == 12 * (grid**2 + 1)
        assert (size[:, :lead] == 1).all()


@pytest.mark.parametrize(
    ("layers", "schedule", "last"),
    [
        (4, {"frames": 8, "merge_layers": [1, 2, 3], "merge_clips": [2, 2, 2]}, (1, 8)),
        (12, {"frames": 32, "merge_layers": [8, 9, 10], "merge_clips": [4, 4, 2]}, (1, 32)),
        (3, {"frames": 1, "merge_layers": [1], "merge_clips": [1]}, (1, 1)),
        (3, {"frames": 5, "merge_layers": [], "merge_clips": []}, (5, 1)),
    ],
)
def test_other_depths_and_numbers_of_frames(
    layers: int, schedule: dict[str, Any], last: tuple[int, int]
) -> None:
    model = model_of("tempme", layers=layers, grid=4, **{**SMALL, "patch_merges": 1, **schedule})
    frames = schedule["frames"]
    batch = batch_for(model, 2, frames)
    seen = trace(model, batch["video"])
    assert (seen[-1][0], seen[-1][2]) == last
    assert all(size.sum() == 2 * frames * 17 for *_, size in seen)
    assert model(batch).frames.shape == (2, frames, 24)


def test_gradient_reaches_every_trained_tensor() -> None:
    model = model_of("tempme", layers=4, grid=4, **SMALL)
    model.loss(batch_for(model, 4, 4))["loss"].backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None and bool(parameter.grad.any())) == (
            parameter.requires_grad
        ), name
    assert model.method.inert() == []


@pytest.mark.parametrize("percent", [0, 30])
def test_positions_are_added_even_if_nothing_merges_across_clips(percent: int) -> None:
    model = model_of("tempme", layers=4, grid=4, **{**SMALL, "joined_percent": percent})
    model.loss(batch_for(model, 2, 4))["loss"].backward()
    for position in model.method.clip_position.values():
        assert position.weight.grad.abs().amax(1).min() > 0  # every clip's


@torch.no_grad()
def test_without_merging_and_joining_it_is_lora() -> None:
    lora = model_of("lora", layers=4, grid=4, frames=3)
    model = model_of("tempme", layers=4, grid=4, frames=3, **OFF)
    model.method.load_state_dict(lora.method.state_dict())
    batch = batch_for(model, 3, 3)
    assert torch.equal(model(batch).frames, lora(batch).frames)
    assert torch.equal(model(batch).text, lora(batch).text)


@torch.no_grad()
def test_text_is_lora_whatever_the_schedule() -> None:
    lora, model = (model_of(m, layers=4, grid=4, **c) for m, c in (("lora", {}), ("tempme", SMALL)))
    model.method.lora.load_state_dict(lora.method.lora.state_dict())
    batch = tiny.batch()
    found = model.encode_text(batch["text_ids"], batch["text_mask"])
    assert torch.equal(found, lora.encode_text(batch["text_ids"], batch["text_mask"]))


@torch.no_grad()
def test_the_last_merge_changes_no_feature() -> None:
    class WithoutLast(TempMe):
        def mid_layer(self, i: int, state: State, k: Tensor) -> None:
            if i < self.dims.vision.layers - 1:
                super().mid_layer(i, state, k)

    model = model_of("tempme", layers=4, grid=4, **SMALL)
    video = pixels(model, 2, 4)
    before, tokens = model.encode_video(video).frames, trace(model, video)[-1][1]
    model.method.__class__ = WithoutLast
    assert trace(model, video)[-1][1] > tokens
    torch.testing.assert_close(model.encode_video(video).frames, before, **CLOSE)


@torch.no_grad()
def test_frames_see_their_video_and_no_other() -> None:
    model = model_of("tempme", layers=4, grid=4, **SMALL)
    video = pixels(model, 2, 4)
    before = model.encode_video(video).frames
    video[0, 1] += 1
    after = model.encode_video(video).frames
    assert (before[0] - after[0]).abs().amax(1).min() > 1e-3  # all four frames
    torch.testing.assert_close(before[1], after[1], **CLOSE)


@torch.no_grad()
def test_order_of_frames_matters_even_without_positions() -> None:
    model = model_of("tempme", layers=4, grid=4, **SMALL)
    for position in model.method.clip_position.values():
        position.weight.zero_()
    video = pixels(model, 2, 4)
    forth, back = model.encode_video(video).pooled, model.encode_video(video.flip(1)).pooled
    assert (forth - back).abs().max() > 1e-3


@torch.no_grad()
def test_masked_frames_are_left_out_of_the_mean_alone() -> None:
    model = model_of("tempme", layers=4, grid=4, **SMALL)
    video, mask = pixels(model, 1, 4), torch.tensor([[1, 1, 1, 0]])
    plain, masked = model.encode_video(video), model.encode_video(video, mask)
    assert torch.equal(plain.frames, masked.frames)
    expected = F.normalize(plain.frames[:, :3], dim=-1).mean(1)
    torch.testing.assert_close(masked.pooled, expected, **CLOSE)


def test_another_number_of_frames_is_refused() -> None:
    model = model_of("tempme", layers=4, grid=4, **SMALL)
    with pytest.raises(UserError, match=r"6 frames per clip given to TempMe, .* for 4"):
        model.encode_video(pixels(model, 1, 6))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": 6}, r"merge_clips is \[2, 2\]: 6 frames cannot be joined so \(3 clips by 2\)"),
        ({"merge_clips": [2, 0]}, r"\(2 clips by 0\)"),
        ({"merge_layers": [1]}, "as many factors as blocks"),
        ({"merge_layers": [2, 1]}, "blocks rising"),
        ({"merge_layers": [1, 1]}, "blocks rising"),
        ({"merge_layers": [1, 4]}, r"has vision blocks 0 to 3"),
        ({"merge_layers": [-1, 2]}, r"has vision blocks 0 to 3"),
        ({"joined_percent": 101}, r"joined_percent is 101; allowed: 0 to 100"),
        ({"inner_percent": -1}, "at least 0"),
    ],
)
def test_bad_schedules_are_named(changes: dict[str, Any], message: str) -> None:
    dims = model_of("lora", layers=4, grid=4).method.dims

    def plan() -> None:
        settings = tiny.settings("tempme", **{**SMALL, **changes})
        settings.options.check(settings, dims)

    with pytest.raises(UserError, match=message):
        plan()


@pytest.mark.parametrize("architecture", ["ViT-B-32-quickgelu", "ViT-B-16-quickgelu"])
@pytest.mark.parametrize(
    ("changes", "count"),
    [({}, 507_648), ({"frames": 32, "merge_clips": [4, 4, 2]}, 523_776)],
    ids=["12 frames", "32 frames"],
)
def test_counts_at_real_size(architecture: str, changes: dict[str, Any], count: int) -> None:
    settings = tiny.settings("tempme", **{**B32, "lora_rank": 8, **changes})
    model = build_retriever(settings, meta_backbone(architecture))
    trained = [p.numel() for p in model.parameters() if p.requires_grad]
    assert (sum(trained), len(trained)) == (count, 51)
    assert model.method.gaps() == ["vision"]
