"""What holds for every method, whatever it does inside."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from discovla.methods import METHODS
from discovla.models.retriever import Retriever
from tests.methods import every
from tests.models import tiny

CLOSE = {"rtol": 1e-4, "atol": 2e-5}
IDENTICAL_AT_START = ["full", "lora", "adapter", "rap", "mv_adapter", "mv_adapter_output"]
KNOWS_THE_ORDER = ["rap", "vop_f", "vop_fp", "vop_fc", "tempme", "dgl_transformer"]
KNOWS_THE_ORDER += ["mv_adapter", "mv_adapter_output"]
TRAINED = [name for name in every.VARIANTS if name != "zero_shot"]


def batch(frames: int = every.FRAMES) -> dict[str, torch.Tensor]:
    return tiny.batch(frames=frames)


@torch.no_grad()
def features(model: Retriever, data: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    text = model.encode_text(data["text_ids"], data["text_mask"])
    return text, model.encode_video(data["video"], data["video_mask"]).pooled


def test_every_method_is_tried() -> None:
    assert {method for method, _ in every.VARIANTS.values()} == set(METHODS)


@pytest.mark.parametrize("name", TRAINED)
def test_gradient_reaches_every_trained_tensor_but_the_inert(name: str) -> None:
    model = every.model(name)
    model.loss(batch())["loss"].backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert trained - reached == {f"method.{n}" for n in model.method.inert()}


@pytest.mark.parametrize("name", IDENTICAL_AT_START)
def test_training_starts_at_plain_clip(name: str) -> None:
    data = batch()
    plain = features(every.model("zero_shot"), data)
    start = features(every.model(name, shaken=False), data)
    torch.testing.assert_close(start, plain, rtol=1e-5, atol=1e-5)
    moved = features(every.model(name), data) if name != "full" else None
    if moved is not None:
        assert not torch.allclose(moved[1], plain[1], atol=1e-3)


@pytest.mark.parametrize("name", every.VARIANTS)
def test_samples_of_a_batch_know_nothing_of_each_other(name: str) -> None:
    model, data = every.model(name), batch()
    whole = features(model, data)
    pieces = [features(model, {k: t[i : i + 1] for k, t in data.items()}) for i in range(4)]
    for side in (0, 1):
        torch.testing.assert_close(whole[side], torch.cat([p[side] for p in pieces]), **CLOSE)


@pytest.mark.parametrize("name", every.VARIANTS)
def test_padding_changes_no_text(name: str) -> None:
    model, data = every.model(name), tiny.batch(frames=every.FRAMES, length=8)
    padded = {n: F.pad(data[n], (0, 2)) for n in ("text_ids", "text_mask")}
    expected, found = features(model, data)[0], features(model, {**data, **padded})[0]
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("name", every.VARIANTS)
def test_order_of_frames_matters_only_where_it_should(name: str) -> None:
    model, data = every.model(name), batch()
    turned = {**data, "video": data["video"].flip(1)}
    same = torch.allclose(features(model, data)[1], features(model, turned)[1], atol=1e-4)
    assert same == (name not in KNOWS_THE_ORDER)


@pytest.mark.parametrize("name", [name for name in every.VARIANTS if name != "tempme"])
def test_a_single_frame_is_enough(name: str) -> None:
    found = features(every.model(name, frames=1), batch(frames=1))
    assert all(side.isfinite().all() for side in found)


@pytest.mark.parametrize("name", every.VARIANTS)
def test_the_same_seed_gives_the_same_start(name: str) -> None:
    one, two = (every.model(name, shaken=False).method for _ in range(2))
    for (n, a), (_, b) in zip(one.named_parameters(), two.named_parameters(), strict=True):
        assert torch.equal(a, b), n
