"""The model as trainer and evaluation see it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from discovla.errors import UserError
from discovla.models.hooks import Outputs
from discovla.models.retriever import build_retriever
from tests.models import tiny

METHODS = ["full", "lora", "discovla"]


@pytest.mark.parametrize("method", METHODS)
def test_gradient_reaches_exactly_the_trained_tensors(method: str) -> None:
    model = tiny.model(method)
    model.loss(tiny.batch())["loss"].backward()
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert trained == reached == set(model.lr_factors) == set(model.trainable_state())


def test_zero_shot_trains_nothing() -> None:
    model = tiny.model("zero_shot")
    assert model.trainable_state() == {}
    assert not model.loss(tiny.batch())["loss"].requires_grad


def test_terms_add_up_to_the_loss() -> None:
    terms = tiny.model(alpha=0.3, beta=2.0).loss(tiny.batch())
    assert list(terms) == ["loss", "loss_vid", "loss_img", "loss_kl"]
    total = terms["loss_vid"] + 0.3 * terms["loss_img"] + 2.0 * terms["loss_kl"]
    torch.testing.assert_close(terms["loss"], total)


def test_terms_of_weight_zero_are_left_out() -> None:
    assert set(tiny.model(alpha=0).loss(tiny.batch())) == {"loss", "loss_vid", "loss_kl"}
    assert set(tiny.model(beta=0).loss(tiny.batch())) == {"loss", "loss_vid", "loss_img"}


def test_pseudo_captions_are_not_needed_without_their_losses() -> None:
    batch = {n: t for n, t in tiny.batch().items() if not n.startswith("frame_text")}
    model = tiny.model(alpha=0, beta=0)
    assert model(batch).frame_texts is None
    assert set(model.loss(batch)) == {"loss", "loss_vid"}


def test_loss_can_be_joined_from_features() -> None:
    """What a trainer in small pieces does: features first, the loss of the whole batch after."""
    model, batch = tiny.model(), tiny.batch()
    pieces = [{n: t[i : i + 1] for n, t in batch.items()} for i in range(4)]
    outs = [model(piece) for piece in pieces]
    joined = Outputs(
        logit_scale=model.logit_scale,
        **{
            name: torch.cat([getattr(out, name) for out in outs])
            for name in ("text", "frames", "video", "frame_texts")
        },
    )
    whole, parts = model.loss(batch), model.loss_of(joined, batch)
    for name in whole:
        torch.testing.assert_close(whole[name], parts[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attention", ["video", "average", "ivfusion"])
def test_padding_behind_the_longest_text_changes_nothing(attention: str) -> None:
    """`collate` cuts it off."""
    short = tiny.batch(length=8)
    long = {n: F.pad(t, (0, 2)) if "text" in n else t for n, t in short.items()}
    results = []
    for batch in (long, short):
        model = tiny.model(attention=attention)
        losses = model.loss(batch)
        losses["loss"].backward()
        results.append(
            (losses, {n: p.grad for n, p in model.named_parameters() if p.requires_grad})
        )
    torch.testing.assert_close(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-3, atol=5e-5)


def test_same_video_pairs_leave_the_loss() -> None:
    batch = tiny.batch()
    apart = {**batch, "video_index": torch.arange(4)}
    model = tiny.model(mask_same_video=True)
    with torch.no_grad():
        assert model.loss(batch)["loss_vid"] < model.loss(apart)["loss_vid"]
        assert model.loss(apart)["loss"] == tiny.model().loss(batch)["loss"]


@torch.no_grad()
def test_bytes_are_normalised_on_the_way_in() -> None:
    model = tiny.model("zero_shot")
    pixels = torch.randint(0, 256, (2, 3, 3, tiny.SIDE, tiny.SIDE), dtype=torch.uint8)
    mean, std = (
        torch.tensor(v).view(3, 1, 1)
        for v in ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    )
    expected = model.encode_video((pixels / 255 - mean) / std)
    torch.testing.assert_close(model.encode_video(pixels).pooled, expected.pooled)


@torch.no_grad()
def test_masked_frames_leave_the_mean_only() -> None:
    model, batch = tiny.model(), tiny.batch()
    mask = batch["video_mask"].clone()
    mask[0, 2] = False
    masked, full = model.encode_video(batch["video"], mask), model.encode_video(batch["video"])
    assert torch.equal(masked.frames, full.frames)
    units = torch.nn.functional.normalize(full.frames, dim=-1)
    torch.testing.assert_close(masked.pooled[0], units[0, :2].mean(0))


def test_new_tensors_depend_on_seed_and_name_only() -> None:
    one, again, other = (
        build_retriever(tiny.settings(), tiny.backbone(), seed).trainable_state()
        for seed in (1, 1, 2)
    )
    torch.rand(3)
    fewer = build_retriever(tiny.settings("lora"), tiny.backbone(), 1).trainable_state()
    assert all(torch.equal(one[n], again[n]) for n in one)
    assert all(torch.equal(one[n], fewer[n]) for n in fewer)
    random = [n for n in one if one[n].any()]
    assert random
    assert not any(torch.equal(one[n], other[n]) for n in random)


def test_trained_state_round_trip() -> None:
    source, target, batch = tiny.model(), tiny.model(shaken=False), tiny.batch()
    state = source.trainable_state()
    target.load_trainable_state(state, "file")
    with torch.no_grad():
        assert torch.equal(source(batch).video, target(batch).video)


@pytest.mark.parametrize("damage", ["missing", "unknown", "shape"])
def test_state_of_other_settings_is_refused(damage: str) -> None:
    model = tiny.model()
    state = model.trainable_state()
    name = next(iter(state))
    if damage == "missing":
        del state[name]
    elif damage == "unknown":
        state["method.other"] = state[name]
    else:
        state[name] = state[name][:-1]
    with pytest.raises(UserError, match=r"adapter\.safetensors: 1 trained tensors"):
        model.load_trainable_state(state, "adapter.safetensors")


def test_trained_temperature_stays_at_most_100() -> None:
    full, lora = tiny.model("full"), tiny.model("lora")
    for model in (full, lora):
        with torch.no_grad():
            model.clip.logit_scale.fill_(5)
        model.clamp_logit_scale()
    assert full.logit_scale.item() == pytest.approx(100)
    assert lora.clip.logit_scale.item() == 5


def test_unknown_method_is_named() -> None:
    with pytest.raises(UserError, match="no method 'lorra'; known: zero_shot, full, lora"):
        build_retriever(tiny.settings("lorra"), tiny.backbone())


def test_losses_over_captions_need_a_method_that_reads_them() -> None:
    with pytest.raises(UserError, match="method lora reads no pseudo captions"):
        build_retriever(tiny.settings("lora", alpha=0.3), tiny.backbone())


@torch.no_grad()
def test_half_precision_ends_at_the_features() -> None:
    model, batch = tiny.model(), tiny.batch()
    with torch.autocast("cpu", torch.bfloat16):
        out = model(batch)
        inside = model.loss_of(out, batch)
    assert {t.dtype for t in vars(out).values()} == {torch.float32}
    assert torch.equal(inside["loss"], model.loss_of(out, batch)["loss"])
    assert not torch.equal(out.frames, model(batch).frames)
    torch.testing.assert_close(out.frames, model(batch).frames, rtol=0.1, atol=0.05)
