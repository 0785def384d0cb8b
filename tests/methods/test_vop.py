"""VoP and its variants F, P and C against their definitions; exact sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from discovla.models.backbone import meta_backbone
from discovla.models.retriever import Retriever, build_retriever
from tests.methods import every, naive
from tests.models import tiny

F_LAYERS = 2
B32, B16 = "ViT-B-32-quickgelu", "ViT-B-16-quickgelu"
REAL = {"prompts": 8, "frame_prompts": 4, "frame_layers": 8}


def lower_prompts(method: Any, i: int, frames: list[Tensor]) -> list[Tensor]:
    """Prompts (n, D) of every frame in a block where frames (tokens, D) are apart."""
    generic = [method.prompts["vision"].weight[i]] if "vision" in method.prompts else []
    if hasattr(method, "table"):
        own = [[method.table.weight[i][f]] for f in range(len(frames))]
    elif hasattr(method, "context"):
        own = [[t] for t in made_of_frames(method, torch.stack([x[0] for x in frames]))]
    else:
        own = [[] for _ in frames]
    return [torch.cat([*generic, *o]) for o in own]


def made_of_frames(method: Any, cls: Tensor) -> list[Tensor]:
    """Context prompts (n, D) of each frame: an LSTM step after step, forth and back."""
    forth, back = (
        run_lstm(method.context, cls, ""),
        run_lstm(method.context, cls.flip(0), "_reverse"),
    )
    made = []
    for f in range(len(cls)):
        flat = method.mix.weight @ torch.cat([forth[f], back[-1 - f]]) + method.mix.bias
        made.append(torch.stack(list(flat.split(cls.shape[1]))))
    return made


def run_lstm(lstm: Any, inputs: Tensor, suffix: str) -> list[Tensor]:
    w, u, b, c = (
        getattr(lstm, f"{n}_l0{suffix}") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    hidden = cell = inputs.new_zeros(lstm.hidden_size)
    states = []
    for x in inputs:
        enter, forget, new, leave = (w @ x + b + u @ hidden + c).chunk(4)
        cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
        hidden = leave.sigmoid() * cell.tanh()
        states.append(hidden)
    return states


def naive_video(model: Retriever, video: Tensor, layers: int) -> Tensor:
    """Features (F, D) of the frames (F, 3, H, W) of one video; `layers` blocks apart."""
    visual, method = model.clip.visual, model.method
    frames = [naive.patch_tokens(model.clip, image) for image in video]
    blocks = visual.transformer.resblocks
    for i in range(layers):
        prompts = lower_prompts(method, i, frames)
        frames = [torch.cat([x[:1], p, x[1:]]) for x, p in zip(frames, prompts, strict=True)]
        if i == 0:
            frames = [visual.ln_pre(x) for x in frames]
        frames = [naive.run_block(blocks[i], x, naive.everything(len(x))) for x in frames]
        count = len(prompts[0])
        frames = [torch.cat([x[:1], x[1 + count :]]) for x in frames]
    if layers < len(blocks):
        frames = [x + method.frame_position.weight[f] for f, x in enumerate(frames)]
        lead, patches = [x[:1] for x in frames], [x[1:] for x in frames]
        for i in range(layers, len(blocks)):
            prompts = method.prompts["joined"].weight[i - layers]
            x = torch.cat([*lead, prompts, *patches])
            if i == 0:
                x = visual.ln_pre(x)
            x = naive.run_block(blocks[i], x, naive.everything(len(x)))
            lead = list(x[: len(frames)].split(1))
            patches = [x[len(frames) + len(prompts) :]]
        frames = lead
    return torch.stack([naive.frame_feature(model.clip, x[0]) for x in frames])


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "changes", "layers"),
    [
        ("vop", {}, 3),
        ("vop_f", {}, 2),
        ("vop_f", {"frame_layers": 1}, 1),
        ("vop_f", {"frame_layers": 0}, 0),
        ("vop_fp", {}, 2),
        ("vop_fp", {"frame_prompts": 4}, 2),
        ("vop_fp", {"frame_layers": 3}, 3),
        ("vop_fc", {}, 2),
        ("vop_fc", {"frame_prompts": 4}, 2),
        ("vop_fc", {"frames": 1}, 2),
    ],
)
def test_video_follows_the_definition(name: str, changes: dict[str, Any], layers: int) -> None:
    model = every.model(name, **{"frames": 3, **changes})
    video = tiny.batch(2, changes.get("frames", 3))["video"]
    found = model.encode_video(video)
    for n in range(2):
        expected = naive_video(model, video[n], layers)
        torch.testing.assert_close(found.frames[n], expected, **naive.CLOSE)
        torch.testing.assert_close(
            found.pooled[n], naive.mean_of_normalised(expected), **naive.CLOSE
        )


@torch.no_grad()
@pytest.mark.parametrize("name", ["vop", "vop_f", "vop_fp", "vop_fc"])
def test_text_follows_the_definition(name: str) -> None:
    model, batch = every.model(name), tiny.batch()
    found = model.encode_text(batch["text_ids"], batch["text_mask"])
    prompts = model.method.prompts["text"].weight
    for ids, feature in zip(batch["text_ids"], found, strict=True):
        expected = naive.prompted_text(model.clip, ids, prompts)
        torch.testing.assert_close(feature, expected, **naive.CLOSE)


@torch.no_grad()
def test_with_all_frames_apart_it_is_base_vop() -> None:
    base, model = every.model("vop"), every.model("vop", frame_layers=3)
    assert base.trainable_state().keys() == model.trainable_state().keys()
    model.load_trainable_state(base.trainable_state())
    batch = tiny.batch(frames=4)
    expected, found = base(batch), model(batch)
    assert torch.equal(found.frames, expected.frames)
    assert torch.equal(found.text, expected.text)


@torch.no_grad()
@pytest.mark.parametrize("name", ["vop_fp", "vop_fc"])
def test_fewer_frames_than_planned_use_the_first_places(name: str) -> None:
    model = every.model(name, frames=4)
    video = tiny.batch(2)["video"]
    found = model.encode_video(video).frames
    for n in range(2):
        torch.testing.assert_close(found[n], naive_video(model, video[n], F_LAYERS), **naive.CLOSE)


def test_starts() -> None:
    method = every.model("vop_fc", shaken=False).method
    assert not method.frame_position.weight.any()
    bound = 32**-0.5
    for tensor in (*method.context.parameters(), *method.mix.parameters()):
        inside = bound if len(tensor) != 64 else 64**-0.5
        assert 0.9 * inside < float(tensor.detach().abs().max()) <= inside
    for bank in method.prompts.values():
        assert float(bank.weight.detach().std()) == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize("architecture", [B32, B16])
@pytest.mark.parametrize(
    ("method", "options", "frames", "count", "positions", "tensors"),
    [
        ("vop", {"prompts": 8}, 12, 122_880, 0, 2),
        ("vop", {"prompts": 8}, 32, 122_880, 0, 2),
        ("vop_fp", REAL, 12, 393_216, 9_216, 5),
        ("vop_fp", REAL, 32, 884_736, 24_576, 5),
        ("vop_fc", REAL, 12, 14_269_440, 9_216, 14),
        ("vop_fc", REAL, 32, 14_269_440, 24_576, 14),
    ],
)
def test_counts_at_real_size(
    architecture: str,
    method: str,
    options: dict[str, Any],
    frames: int,
    count: int,
    positions: int,
    tensors: int,
) -> None:
    settings = tiny.settings(method, frames=frames, words=64, **options)
    model = build_retriever(settings, meta_backbone(architecture))
    trained = {n: p.numel() for n, p in model.method.named_parameters() if p.requires_grad}
    uncounted = model.method.uncounted()
    assert sum(trained.values()) == count + positions
    assert sum(trained[n] for n in uncounted) == positions
    assert len(trained) == tensors
    assert model.method.inert() == []
