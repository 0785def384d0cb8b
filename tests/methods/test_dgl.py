"""DGL against its definition: global and local prompts, the banks, the pools; exact size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from discovla.models.backbone import meta_backbone
from discovla.models.hooks import VISION, State
from discovla.models.retriever import Retriever, build_retriever
from tests.methods import naive
from tests.models import tiny

COUNT, FRAMES = 2, 3
BOTH = pytest.mark.parametrize("generator", ["linear", "transformer"])


def model_of(generator: str, shaken: bool = True, **changes: Any) -> Retriever:
    values = {"prompts": COUNT, "frames": FRAMES, "generator": generator, **changes}
    return tiny.model("dgl", shaken, **values)


def mixed_rows(method: Any, layer: int) -> Tensor:
    """Rows of the transformer's bank after its block: 2n of texts, n for every frame."""
    bank = method.prompts.bank.weight[layer]
    return naive.run_trained_block(method.prompts.block, bank, naive.everything(len(bank)))


def local_prompts(method: Any, layer: int, frame: int) -> Tensor:
    if not hasattr(method.prompts, "block"):
        return method.prompts.bank.weight[layer]
    start = (2 + frame) * COUNT
    return mixed_rows(method, layer)[start : start + COUNT]


def prefix_prompts(method: Any, layer: int) -> Tensor:
    parts = method.prompts
    if not hasattr(parts, "block"):
        rows = [parts.prefix.weight @ row + parts.prefix.bias for row in parts.bank.weight[layer]]
        return torch.stack(rows)
    return parts.proj(naive.quick(parts.fc(mixed_rows(method, layer)[:COUNT])))


def naive_video(model: Retriever, video: Tensor) -> tuple[Tensor, Tensor]:
    """Global prompts (n, D) and class tokens (F, D), projected, of one video (F, 3, H, W).

    One sequence: the global prompts, then class token, local prompts and patches of every frame.
    """
    visual, method = model.clip.visual, model.method
    lead = method.global_prompts.weight
    frames = [visual.ln_pre(naive.patch_tokens(model.clip, image)) for image in video]
    size = len(frames[0]) + COUNT

    def sees(t: int) -> list[int]:
        if t < COUNT:
            return list(range(COUNT + size * len(frames)))
        start = COUNT + (t - COUNT) // size * size
        return [*range(COUNT), *range(start, start + size)]

    for i, block in enumerate(visual.transformer.resblocks):
        tokens = [
            torch.cat([x[:1], local_prompts(method, i, f), x[1:]]) for f, x in enumerate(frames)
        ]
        x = naive.run_block(block, torch.cat([lead, *tokens]), sees)
        lead, pieces = x[:COUNT], x[COUNT:].split(size)
        frames = [torch.cat([x[:1], x[1 + COUNT :]]) for x in pieces]
    project = [naive.frame_feature(model.clip, token) for token in (*lead, *(x[0] for x in frames))]
    return torch.stack(project[:COUNT]), torch.stack(project[COUNT:])


@torch.no_grad()
@BOTH
@pytest.mark.parametrize("frames", [1, 2, FRAMES])
def test_video_follows_the_definition(generator: str, frames: int) -> None:
    model, video = model_of(generator), tiny.batch(2, frames)["video"]
    found = model.encode_video(video)
    for n in range(2):
        lead, classes = naive_video(model, video[n])
        torch.testing.assert_close(found.frames[n], torch.cat([lead, classes]), **naive.CLOSE)
        torch.testing.assert_close(found.pooled[n], lead[0], **naive.CLOSE)


@torch.no_grad()
@BOTH
def test_text_follows_the_definition(generator: str) -> None:
    model, batch = model_of(generator), tiny.batch()
    found = model.encode_text(batch["text_ids"], batch["text_mask"])
    layers = range(model.method.dims.text.layers)
    prompts = [prefix_prompts(model.method, i) for i in layers]
    for ids, feature in zip(batch["text_ids"], found, strict=True):
        expected = naive.prompted_text(model.clip, ids, prompts, moved=False)
        torch.testing.assert_close(feature, expected, **naive.CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("pool", ["global", "globals", "frames", "both"])
def test_pools_are_plain_means(pool: str) -> None:
    model, video = model_of("linear", pool=pool), tiny.batch(2)["video"]
    found = model.encode_video(video).pooled
    for n in range(2):
        lead, classes = naive_video(model, video[n])
        vectors = {"global": [lead[0]], "globals": [*lead], "frames": [*classes]}
        taken = vectors.get(pool, [*lead, *classes])
        torch.testing.assert_close(found[n], sum(taken) / len(taken), **naive.CLOSE)


@torch.no_grad()
@BOTH
def test_copies_of_the_global_prompts_stay_equal(generator: str) -> None:
    model, seen = model_of(generator), []
    leave = model.method.post_layer

    def after(i: int, state: State) -> None:
        leave(i, state)
        if state.tower == VISION:
            seen.append(state.x[:, 1 : 1 + COUNT].unflatten(0, (state.batch, state.groups)))

    model.method.post_layer = after  # type: ignore[method-assign]
    model.encode_video(tiny.batch(2)["video"])
    assert len(seen) == 3
    for copies in seen:
        assert torch.equal(copies, copies[:, :1].expand_as(copies))
        assert not torch.allclose(copies[0], copies[1], atol=1e-3)


@torch.no_grad()
@BOTH
@pytest.mark.parametrize("frames", [2, FRAMES])
def test_text_alone_is_text_with_a_video(generator: str, frames: int) -> None:
    model, batch = model_of(generator), tiny.batch(4, frames)
    alone = model.encode_text(batch["text_ids"], batch["text_mask"])
    video = model.encode_video(batch["video"]).frames
    together = model(batch)
    assert torch.equal(together.text, alone)
    assert torch.equal(together.frames, video)


def test_postfix_prompts_are_inert() -> None:
    model, batch = model_of("linear"), tiny.batch()
    assert set(model.method.inert()) == {"prompts.postfix.weight", "prompts.postfix.bias"}
    model.loss(batch)["loss"].backward()
    for name, tensor in model.method.named_parameters():
        reached = tensor.grad is not None and bool(tensor.grad.any())
        assert reached == (name not in model.method.inert()), name
    with torch.no_grad():
        before = model.encode_text(batch["text_ids"], batch["text_mask"])
        tiny.shake(model.method.prompts.postfix)
        assert torch.equal(before, model.encode_text(batch["text_ids"], batch["text_mask"]))


def test_postfix_rows_of_the_transformer_act_through_its_block() -> None:
    model = model_of("transformer")
    assert model.method.inert() == []
    model.loss(tiny.batch())["loss"].backward()
    gradient = model.method.prompts.bank.weight.grad
    assert gradient is not None
    assert gradient.shape == (4, (2 + FRAMES) * COUNT, 32)
    assert (gradient[:3].abs().amax(2) > 0).all()


def test_masked_frames_count_like_the_others() -> None:
    model, batch = model_of("linear"), tiny.batch(2)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    with torch.no_grad():
        plain, masked = (model.encode_video(batch["video"], m) for m in (None, mask))
    assert torch.equal(plain.pooled, masked.pooled)


def test_starts_are_uniform_or_normal() -> None:
    bound = (6 / (3 * 8**2 + 32)) ** 0.5
    linear, transformer = (model_of(g, shaken=False).method for g in ("linear", "transformer"))
    for bank in (linear.prompts.bank, linear.global_prompts, transformer.global_prompts):
        assert 0.8 * bound < float(bank.weight.detach().abs().max()) <= bound
    assert float(transformer.prompts.bank.weight.detach().std()) == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("architecture", ["ViT-B-32-quickgelu", "ViT-B-16-quickgelu"])
@pytest.mark.parametrize(
    ("generator", "frames", "count"),
    [
        ("linear", 12, 827_392),
        ("linear", 32, 827_392),
        ("transformer", 12, 9_575_168),
        ("transformer", 32, 9_575_168 + 20 * 4 * 12 * 768),
        ("transformer", 64, 11_492_096),
    ],
)
def test_counts_at_real_size(architecture: str, generator: str, frames: int, count: int) -> None:
    settings = tiny.settings("dgl", prompts=4, generator=generator, frames=frames, words=64)
    model = build_retriever(settings, meta_backbone(architecture))
    trained = {n: p.numel() for n, p in model.method.named_parameters() if p.requires_grad}
    assert sum(trained.values()) == count
    inert = sum(trained[name] for name in model.method.inert())
    assert inert == {"linear": 393_728, "transformer": 0}[generator]
    if generator == "transformer":
        parts = {"block": 7_087_872, "fc": 1_181_184, "proj": 786_944}
        for part, size in parts.items():
            assert size == sum(
                n for name, n in trained.items() if name.startswith(f"prompts.{part}.")
            )
