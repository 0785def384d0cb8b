"""MV-Adapter agrees with recorded numbers and optimiser steps; wrong variants are noticed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from discovla import parity
from discovla.errors import UserError
from discovla.methods.mv_adapter import Bottleneck, VideoBottleneck
from discovla.models.hooks import TEXT, State
from discovla.parity.case import Case
from discovla.parity.clip4clip import split_biases
from discovla.parity.mv_adapter import Recorded

Shared = Callable[[str], Path]
Patch = pytest.MonkeyPatch
IN, OUT = (f"golden_methods/mvadapter_public_{side}.json" for side in ("in", "out"))

calibration, over_time = VideoBottleneck.calibration, VideoBottleneck._over_time


def beyond(errors: dict[str, float]) -> set[str]:
    """Kinds of tensors of which one is beyond its limit."""
    return {n.split("/")[0] for n, e in errors.items() if not e <= parity.limit_of(n)}


@pytest.mark.parametrize("path", [IN, OUT])
def test_outputs_gradients_and_recorded_steps_agree(shared: Shared, path: str) -> None:
    case = Case.read(shared(path))
    errors = parity.compare(shared(path))
    steps = case.tensors("trace") if case["trace"] else {}
    assert bool(steps) == (path == IN)
    assert set(errors) == set(split_biases({**case.wanted, **steps}))
    assert not beyond(errors), {n: e for n, e in errors.items() if e > parity.limit_of(n)}


def untied(patch: Patch) -> None:
    """No layer is tied."""

    def wrong(self: Bottleneck, y: Tensor, shared: Tensor | None) -> Tensor:
        return self.down(y)

    patch.setattr(Bottleneck, "shrink", wrong)


def one_plus_factor(patch: Patch) -> None:
    """Tied weights are scaled by 1 + factor."""

    def wrong(self: Bottleneck, y: Tensor, shared: Tensor | None) -> Tensor:
        weight = self.down.weight
        if shared is not None:
            factor = 1 + self.tie(shared)
            weight = weight * (factor if self.side == "input" else factor[:, None])
        return F.linear(y, weight, self.down.bias)

    patch.setattr(Bottleneck, "shrink", wrong)


def no_calibration(patch: Patch) -> None:
    """Class tokens come back as they are."""

    def wrong(self: VideoBottleneck, *parts: Any) -> Tensor:
        return torch.ones_like(calibration(self, *parts))

    patch.setattr(VideoBottleneck, "calibration", wrong)


def calibration_without_patches(patch: Patch) -> None:
    """Patch means do not enter the calibration."""

    def wrong(
        self: VideoBottleneck, frames: Tensor, means: Tensor, token: Tensor, state: State
    ) -> Tensor:
        return calibration(self, frames, torch.zeros_like(means), token, state)

    patch.setattr(VideoBottleneck, "calibration", wrong)


def calibration_without_token(patch: Patch) -> None:
    """The learned token does not enter the calibration."""

    def wrong(
        self: VideoBottleneck, frames: Tensor, means: Tensor, token: Tensor, state: State
    ) -> Tensor:
        patch.setattr(self.token_map, "forward", torch.zeros_like)
        return calibration(self, frames, means, token, state)

    patch.setattr(VideoBottleneck, "calibration", wrong)


def every_frame_counts(patch: Patch) -> None:
    """The small block sees masked frames."""

    def wrong(self: VideoBottleneck, cls: Tensor, means: Tensor, state: State) -> Tensor:
        return over_time(self, cls, means, dataclasses.replace(state, frame_mask=None))

    patch.setattr(VideoBottleneck, "_over_time", wrong)


@pytest.mark.parametrize("path", [IN, OUT])
@pytest.mark.parametrize(
    "make_wrong",
    [
        untied,
        one_plus_factor,
        no_calibration,
        calibration_without_patches,
        calibration_without_token,
        every_frame_counts,
    ],
)
def test_wrong_adapters_are_noticed(
    shared: Shared, monkeypatch: Patch, path: str, make_wrong: Callable[[Patch], None]
) -> None:
    given = shared(path)
    make_wrong(monkeypatch)
    errors = parity.compare(given)
    assert errors["out/video_feat"] > 10 * parity.limit_of("out/video_feat")
    assert beyond(errors) >= {"out", "grad"}


def test_the_mask_of_the_calibration_shows_in_masked_frames_alone(
    shared: Shared, monkeypatch: Patch
) -> None:
    def wrong(
        self: VideoBottleneck, frames: Tensor, means: Tensor, token: Tensor, state: State
    ) -> Tensor:
        without = dataclasses.replace(state, frame_mask=None)
        return calibration(self, frames, means, token, without)

    given = shared(OUT)
    monkeypatch.setattr(VideoBottleneck, "calibration", wrong)
    errors = parity.compare(given)
    assert beyond(errors) == {"out"}
    assert errors["out/frame_feat"] > parity.limit_of("out/frame_feat")
    assert errors["out/video_feat"] <= parity.limit_of("out/video_feat")


class LoudTexts(Recorded):
    """Text adapters are added without their factor 0.1."""

    def mlp_out(self, i: int, state: State, y: Tensor) -> Tensor:
        return (
            y + self.adapted(i, state, y) if state.tower == TEXT else super().mlp_out(i, state, y)
        )


class FirstBiasesFrozen(Recorded):
    """The bias of the LayerNorm before all vision blocks stays."""

    def trainable(self, clip: nn.Module) -> dict[str, float]:
        return {n: f for n, f in super().trainable(clip).items() if "ln_pre" not in n}


class BiasesKept(Recorded):
    """CLIP's biases do not decay."""

    def decays(self, name: str) -> bool:
        return not name.endswith("bias")


@pytest.mark.parametrize(
    ("kind", "noticed"),
    [
        (LoudTexts, {"out", "grad", "step6"}),
        (FirstBiasesFrozen, {"grad", "step6"}),
        (BiasesKept, {"step6"}),
    ],
)
def test_wrong_models_are_noticed(shared: Shared, kind: type[Recorded], noticed: set[str]) -> None:
    assert beyond(parity.compare(shared(IN), kind=kind)) == noticed


@pytest.mark.parametrize(
    "change",
    [
        {"cosine": "after_warmup"},
        {"optimiser": "adamw"},
        {"decay": "all"},
        {"clip_norm": 1e9},
        {"storage": "fp16"},
        {"clip_bias_lr": 1.0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_wrong_optimisation_is_noticed(shared: Shared, change: dict[str, Any]) -> None:
    assert beyond(parity.compare(shared(IN), **change)) == {"step6"}


@pytest.mark.parametrize("change", [{"tie": "output"}, {"tied_layers": 1}, {"bottleneck": 16}])
def test_parameters_of_another_size(shared: Shared, change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"tensors are missing, unknown or of another shape"):
        parity.compare(shared(IN), **change)
