"""LoRA in CLIP's own weights gives the same features and needs no products of its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from discovla.errors import UserError
from discovla.methods.lora import LoRA, LowRank
from discovla.models.merging import merge_lora
from discovla.models.retriever import Retriever
from tests.methods import every
from tests.models import tiny

WITH_LORA = ("lora", "discovla", "tempme")


def features(model: Retriever) -> list[Tensor]:
    batch = tiny.batch(frames=every.FRAMES)
    with torch.inference_mode():
        video = model.encode_video(batch["video"], batch["video_mask"])
        return [model.encode_text(batch["text_ids"], batch["text_mask"]), *video]


@pytest.mark.parametrize("name", WITH_LORA)
def test_features_are_those_of_the_unmerged_model(name: str) -> None:
    model = every.model(name)
    before = features(model)
    merge_lora(model)
    for merged, unmerged in zip(features(model), before, strict=True):
        assert (merged - unmerged).abs().max() <= 1e-5 * unmerged.abs().max()
    torch.testing.assert_close(features(model), before, rtol=1e-4, atol=1e-5)


def test_the_low_rank_part_was_large_enough_to_matter() -> None:
    plain, trained = every.model("zero_shot"), every.model("lora")
    for a, b in zip(features(plain), features(trained), strict=True):
        assert (a - b).abs().max() > 1e-2 * a.abs().max()


@pytest.mark.parametrize("name", WITH_LORA)
def test_no_low_rank_tensor_is_left_and_nothing_is_trained(name: str) -> None:
    model = every.model(name)
    assert any(isinstance(module, LowRank) for module in model.modules())
    merge_lora(model)
    assert not any(isinstance(module, LowRank) for module in model.modules())
    assert model.trainable_state() == {}


def test_an_adapter_cannot_be_put_on_a_merged_model() -> None:
    state = every.model("lora").trainable_state()
    model = every.model("lora")
    merge_lora(model)
    with pytest.raises(UserError, match="missing, unknown"):
        model.load_trainable_state(state)


def test_merging_twice_is_refused() -> None:
    model = every.model("lora")
    merge_lora(model)
    with pytest.raises(UserError, match="merged already"):
        merge_lora(model)


@pytest.mark.parametrize("name", sorted(set(every.VARIANTS) - set(WITH_LORA)))
def test_methods_without_lora_are_refused_and_left_alone(name: str) -> None:
    model = every.model(name)
    assert not isinstance(model.method, LoRA)
    before = features(model)
    with pytest.raises(UserError, match="no LoRA"):
        merge_lora(model)
    assert all(torch.equal(a, b) for a, b in zip(features(model), before, strict=True))
