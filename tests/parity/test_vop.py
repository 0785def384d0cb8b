"""Base VoP agrees with the released code, and wrong variants are noticed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from discovla import parity
from discovla.methods.prompt import Prompt
from discovla.methods.vop import VoP
from discovla.models.hooks import TEXT
from discovla.parity.case import Case
from tests.parity.wrong_prompts import WRONG

Shared = Callable[[str], Path]
CASE = "golden_methods/vop_public.json"


def test_outputs_and_both_gradients_agree(shared: Shared) -> None:
    path = shared(CASE)
    errors = parity.compare(path)
    wanted = {n for n in Case.read(path).wanted if not n.startswith("out/split_")}
    assert set(errors) == wanted
    assert {name.split("/")[0] for name in errors} == {"out", "grad", "grad_vjp"}
    assert parity.within_limits(errors), {n: e for n, e in errors.items() if e > parity.limit_of(n)}


@pytest.mark.parametrize(("wrong", "tower"), WRONG)
def test_wrong_prompts_are_noticed(shared: Shared, wrong: type[Prompt], tower: str) -> None:
    kind = type(wrong.__name__, (wrong, VoP), {})
    errors = parity.compare(shared(CASE), kind=kind)
    feature = "out/text_feat" if tower == TEXT else "out/video_feat"
    assert errors[feature] > 100 * parity.limit_of(feature)
    assert max(e for n, e in errors.items() if n.startswith("grad/")) > 1e-2


class NotNormalised(VoP):
    """Frames are averaged as they are."""

    def pool(self, frames: Tensor, mask: Tensor | None) -> Tensor:
        return frames.mean(1)


class NormalisedAgain(VoP):
    """The mean of frames is normalised too."""

    def pool(self, frames: Tensor, mask: Tensor | None) -> Tensor:
        return torch.nn.functional.normalize(super().pool(frames, mask), dim=-1)


@pytest.mark.parametrize("wrong", [NotNormalised, NormalisedAgain])
def test_wrong_pools_are_noticed(shared: Shared, wrong: type[VoP]) -> None:
    errors = parity.compare(shared(CASE), kind=wrong)
    for name in ("out/video_feat", "out/score", "out/loss"):
        assert errors[name] > 10 * parity.limit_of(name)
    assert errors["out/frame_feat"] <= parity.limit_of("out/frame_feat")
