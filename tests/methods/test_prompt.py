"""Prompts against their definition; where the words and the end mark stand; exact size."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from discovla.models.backbone import meta_backbone
from discovla.models.hooks import State
from discovla.models.retriever import Retriever, build_retriever
from tests.methods import naive
from tests.models import tiny

COUNT = 3


def prompted(**changes: Any) -> Retriever:
    return tiny.model("prompt", **{"prompts": COUNT, **changes})


@torch.no_grad()
def text_features(model: Retriever, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return model.encode_text(batch["text_ids"], batch["text_mask"])


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 3])
def test_towers_follow_the_definition(frames: int) -> None:
    model, batch = prompted(frames=frames), tiny.batch(2, frames)
    prompts, out = model.method.prompts, model(batch)
    for n in range(2):
        expected = torch.stack(
            [
                naive.prompted_frame(model.clip, image, prompts["vision"].weight)
                for image in batch["video"][n]
            ]
        )
        torch.testing.assert_close(out.frames[n], expected, **naive.CLOSE)
        torch.testing.assert_close(out.video[n], naive.mean_of_normalised(expected), **naive.CLOSE)
        text = naive.prompted_text(model.clip, batch["text_ids"][n], prompts["text"].weight)
        torch.testing.assert_close(out.text[n], text, **naive.CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("length", [3, 7, 13])
def test_texts_of_any_length_that_leaves_room(length: int) -> None:
    model, batch = prompted(words=13), tiny.batch(3, length=length)
    found = text_features(model, batch)
    for n in range(3):
        expected = naive.prompted_text(
            model.clip, batch["text_ids"][n], model.method.prompts["text"].weight
        )
        torch.testing.assert_close(found[n], expected, **naive.CLOSE)


def test_words_and_end_mark_move_on_by_the_prompts() -> None:
    model = prompted()
    ids = torch.zeros(1, 10, dtype=torch.long)
    ids[0, :5] = torch.tensor([tiny.VOCAB - 2, 7, 8, 9, tiny.VOCAB - 1])
    table = model.clip.positional_embedding.requires_grad_(True)
    model.encode_text(ids, ids > 0).sum().backward()
    assert table.grad is not None
    used = table.grad.abs().amax(1) > 0
    assert used.tolist() == [True] * (5 + COUNT) + [False] * (tiny.CONTEXT - 5 - COUNT)


@torch.no_grad()
def test_every_block_has_its_own_prompts_and_returns_none() -> None:
    model, batch = prompted(), tiny.batch(2)
    seen: list[tuple[int, int]] = []
    enter = model.method.pre_layer
    leave = model.method.post_layer

    def before(i: int, state: State) -> None:
        enter(i, state)
        own = model.method.prompts[state.tower].weight[i]
        if i > 0:
            for x in state.x:
                assert torch.equal(x[1 : 1 + COUNT], own)

    def after(i: int, state: State) -> None:
        inside = state.x.shape[1]
        leave(i, state)
        seen.append((inside, state.x.shape[1]))

    model.method.pre_layer, model.method.post_layer = before, after  # type: ignore[method-assign]
    model.encode_video(batch["video"])
    assert seen == [(5 + COUNT, 5)] * 3
    seen.clear()
    text_features(model, batch)
    assert seen == [(10 + COUNT, 10)] * 4


def test_prompts_start_small_and_random() -> None:
    for bank in prompted(shaken=False, prompts=6).method.prompts.values():
        assert float(bank.weight.detach().std()) == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("architecture", ["ViT-B-32-quickgelu", "ViT-B-16-quickgelu"])
@pytest.mark.parametrize("changes", [{}, {"frames": 32, "words": 64}])
def test_counts_at_real_size(architecture: str, changes: dict[str, Any]) -> None:
    settings = tiny.settings("prompt", prompts=5, **{"frames": 12, "words": 32, **changes})
    model = build_retriever(settings, meta_backbone(architecture))
    trained = [p.numel() for p in model.parameters() if p.requires_grad]
    # The released code keeps its 24 pieces apart, here each tower has one tensor.
    assert (sum(trained), sum(len(b.weight) for b in model.method.prompts.values())) == (76_800, 24)
    assert model.method.uncounted() == model.method.inert() == []
