from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovla.config import load_checked
from discovla.data.estimate import (
    CaptionerShape,
    CaptionWork,
    Card,
    TextShape,
    VisionShape,
    answer_flops,
    best_grid,
    caption_flops,
    image_flops,
    image_tokens,
    text_flops,
    training_steps,
)

ESTIMATE = load_checked("config/estimate.yaml", "estimate")
NEXT = CaptionerShape.of(ESTIMATE["captioners"]["llava-next"])
TINY = CaptionerShape(
    template=0,
    image=VisionShape(tile=8, patch=4, grids=[(8, 16), (16, 8)], layers=2, width=16, mlp=24),
    text=TextShape(layers=3, width=32, kv_width=16, mlp=48, vocabulary=50),
)


def test_image_tokens_are_those_of_transformers() -> None:
    """Every size of a wide range, on the checkpoint's grids and on others."""
    from transformers.image_processing_utils import select_best_resolution
    from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor

    for shape in (NEXT.image, replace(NEXT.image, tile=64, patch=16, grids=[(64, 128), (192, 64)])):
        processor: Any = SimpleNamespace(
            image_processor=SimpleNamespace(image_grid_pinpoints=shape.grids),
            patch_size=shape.patch,
            num_additional_image_tokens=1,
        )
        processor._get_unpadded_features = LlavaNextProcessor._get_unpadded_features.__get__(
            processor
        )
        for width in range(16, 2000, 61):
            for height in range(16, 1300, 37):
                theirs = LlavaNextProcessor._get_number_of_features(
                    processor, height, width, shape.tile, shape.tile
                )
                # One less: the class token goes (vision_feature_select_strategy: default).
                assert image_tokens(width, height, shape) == theirs - 1, (width, height)
                grid = select_best_resolution((height, width), shape.grids)
                assert best_grid(width, height, shape) == grid


@pytest.mark.parametrize(
    ("size", "tokens"),
    [((320, 240), 1368), ((240, 320), 1032), ((336, 336), 1176), ((640, 480), 2340),
     ((480, 360), 2340), ((1920, 1080), 1948)],
)  # fmt: skip
def test_image_tokens_of_usual_frames(size: tuple[int, int], tokens: int) -> None:
    assert image_tokens(*size, NEXT.image) == tokens


def test_text_operations_are_those_that_torch_counts() -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import MistralConfig, MistralForCausalLM

    shape, n = TINY.text, 11
    config = MistralConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = MistralForCausalLM(config).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=torch.arange(n)[None], use_cache=False)
    # torch counts every pair of positions, also those that the causal mask drops.
    dropped = n * n - n * (n + 1) // 2
    ours = answer_flops(0, n, shape) + 4 * shape.layers * shape.width * dropped
    assert counter.get_total_flops() == pytest.approx(ours, rel=0.002)  # rotary angles besides


def test_image_operations_are_those_that_torch_counts() -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import CLIPVisionConfig, CLIPVisionModel

    image, text = TINY.image, TINY.text
    config = CLIPVisionConfig(
        hidden_size=image.width,
        intermediate_size=image.mlp,
        num_hidden_layers=image.layers,
        num_attention_heads=4,
        image_size=image.tile,
        patch_size=image.patch,
    )
    model = CLIPVisionModel(config).eval()
    projector = torch.nn.Sequential(
        torch.nn.Linear(image.width, text.width), torch.nn.Linear(text.width, text.width)
    )
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        tiles = model(pixel_values=torch.zeros(3, 3, image.tile, image.tile)).last_hidden_state
        projector(tiles[:, 1:])
    assert image_flops(16, 8, TINY) == counter.get_total_flops()


@given(st.integers(0, 50), st.integers(0, 30), st.integers(0, 30))
def test_text_after_text_is_text(start: int, first: int, second: int) -> None:
    shape = TINY.text
    both = text_flops(start, first, shape) + text_flops(start + first, second, shape)
    assert text_flops(start, first + second, shape) == pytest.approx(both)


def naive(work: CaptionWork, size: tuple[int, int], shape: CaptionerShape) -> tuple[float, float]:
    """Prompt by prompt, and frame by frame with what its prompts share done once."""
    prefix = image_tokens(*size, shape.image) + shape.template + work.before
    after = round(work.after)
    head = image_flops(*size, shape) + text_flops(0, prefix, shape.text)
    single = image_flops(*size, shape) + text_flops(0, prefix + after, shape.text)
    single += answer_flops(prefix + after, work.answer, shape.text)
    each = sum(single for _ in range(work.prompts))
    shared = sum(head for _ in range(work.frames)) + sum(single - head for _ in range(work.prompts))
    return each, shared


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 9), st.integers(0, 9))
def test_captions_cost_the_sum_of_their_prompts(
    frames: int, per_frame: int, before: int, after: int
) -> None:
    work = CaptionWork(frames, frames * per_frame, before, after, answer=4)
    cost = caption_flops(work, {(16, 8): 7}, TINY)
    each, shared = naive(work, (16, 8), TINY)
    assert cost["naive"] == pytest.approx(each)
    assert cost["shared"] == pytest.approx(shared)
    assert cost["shared"] <= cost["naive"] * (1 + 1e-12)


def test_sizes_count_by_their_share() -> None:
    work = CaptionWork(4, 8, 3, 5, 6)
    sizes = {(16, 8): 1, (8, 16): 3}
    cost = caption_flops(work, sizes, TINY)
    parts = {size: caption_flops(work, {size: 1}, TINY) for size in sizes}
    for name, value in cost.items():
        mean = sum(parts[size][name] * times for size, times in sizes.items()) / 4
        assert value == pytest.approx(mean)


def test_msrvtt_on_the_card_of_the_configuration() -> None:
    """12 frames of 9,000 videos with 20 captions each, 60 tokens of text: figures known before."""
    work = CaptionWork(frames=108_000, prompts=2_160_000, before=14, after=38, answer=40)
    cost, card = caption_flops(work, {(320, 240): 1}, NEXT), Card(**ESTIMATE["card"])
    assert cost["naive"] / work.prompts == pytest.approx(22.2e12, rel=0.01)
    assert cost["shared"] / work.prompts == pytest.approx(2.21e12, rel=0.01)
    assert card.hours(cost["naive"]) == pytest.approx(27.0, rel=0.01)
    assert card.hours(cost["shared"]) == pytest.approx(2.7, rel=0.01)


@pytest.mark.parametrize(
    ("pairs", "batch", "epochs", "limit", "steps"),
    [(180_000, 128, 5, None, 7030), (180_000, 128, 5, 150, 150), (100, 128, 5, None, 0)],
)
def test_training_steps(pairs: int, batch: int, epochs: int, limit: int | None, steps: int) -> None:
    assert training_steps(pairs, batch, epochs, limit) == steps
