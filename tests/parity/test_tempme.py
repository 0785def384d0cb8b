"""TempMe agrees with the released code, and wrong ways of merging are noticed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from discovla import parity
from discovla.errors import UserError
from discovla.methods import tempme
from discovla.methods.tempme import ClipPosition, Matching, TempMe
from discovla.models.hooks import Core, State
from discovla.parity.case import Case

Shared = Callable[[str], Path]
Patch = pytest.MonkeyPatch
CASE = "golden_methods/tempme_public.json"

match, merge, shorten, mid_layer = tempme.match, tempme.merge, TempMe.shorten, TempMe.mid_layer


def test_outputs_traces_and_gradients_agree(shared: Shared) -> None:
    path = shared(CASE)
    errors = parity.compare(path)
    assert {name.split("/")[0] for name in errors} == {"out", "grad", "trace"}
    assert errors.keys() >= Case.read(path).wanted.keys()
    assert sum(name.endswith("_size") for name in errors) == 12
    assert parity.within_limits(errors), {n: e for n, e in errors.items() if e > parity.limit_of(n)}


def interleaved(patch: Patch) -> None:
    """Tokens keep their order in place of sources before targets."""

    def wrong(metric: Tensor, lead: int, count: int) -> Matching:
        right = match(metric, lead, count)
        kept, order = right.kept.sort(-1)
        return Matching(kept, right.gone, order.argsort(-1).gather(1, right.into))

    patch.setattr(tempme, "match", wrong)


def counted_from_the_first_patch(patch: Patch) -> None:
    """Even and odd places are those among the patches."""

    def wrong(metric: Tensor, lead: int, count: int) -> Matching:
        kept, gone, into = (places + lead for places in match(metric[:, lead:], 0, count))
        classes = torch.arange(lead).expand(len(kept), -1)
        return Matching(torch.cat([classes, kept], 1), gone, into)

    patch.setattr(tempme, "match", wrong)


def plain_mean(patch: Patch) -> None:
    """Means do not weigh tokens by their sizes."""

    def wrong(matching: Matching, x: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        return merge(matching, x, torch.ones_like(size))[0], merge(matching, x, size)[1]

    patch.setattr(tempme, "merge", wrong)


def sizes_without_weight(patch: Patch) -> None:
    """The attention does not count large tokens more than once."""

    def wrong(
        self: TempMe, i: int, state: State, q: Tensor, k: Tensor, v: Tensor, core: Core
    ) -> Tensor:
        return core.out(core.mix(q, k, v, causal=state.causal))

    patch.setattr(TempMe, "attend", wrong)


def compared_by_tokens(patch: Patch) -> None:
    """Tokens after the attention are compared in place of their keys."""

    def wrong(self: TempMe, state: State, metric: Tensor, count: int) -> None:
        keys = metric.shape[-1] != state.x.shape[-1]
        shorten(self, state, state.x.detach() if keys else metric, count)

    patch.setattr(TempMe, "shorten", wrong)


def compared_with_positions(patch: Patch) -> None:
    """Clips are compared after positions have been added."""

    def wrong(self: TempMe, state: State, metric: Tensor, count: int) -> None:
        raw = metric.shape[-1] == state.x.shape[-1]
        shorten(self, state, state.x.detach() if raw else metric, count)

    patch.setattr(TempMe, "shorten", wrong)


def no_positions(patch: Patch) -> None:
    """Clips are joined without positions."""
    patch.setattr(ClipPosition, "forward", lambda self, x: x)


@pytest.mark.parametrize(
    "make_wrong",
    [
        interleaved,
        counted_from_the_first_patch,
        plain_mean,
        sizes_without_weight,
        compared_by_tokens,
        compared_with_positions,
        no_positions,
    ],
)
def test_wrong_merging_is_noticed(
    shared: Shared, monkeypatch: Patch, make_wrong: Callable[[Patch], None]
) -> None:
    path = shared(CASE)
    make_wrong(monkeypatch)
    errors = parity.compare(path)
    assert errors["out/video_feat"] > 100 * parity.limit_of("out/video_feat")
    assert errors["out/text_feat"] <= parity.limit_of("out/text_feat")  # merging is of the video


def test_the_last_merge_shows_in_the_trace_alone(shared: Shared, monkeypatch: Patch) -> None:
    def all_but_the_last(self: TempMe, i: int, state: State, k: Tensor) -> None:
        if i < self.dims.vision.layers - 1:
            mid_layer(self, i, state, k)

    path = shared(CASE)
    monkeypatch.setattr(TempMe, "mid_layer", all_but_the_last)
    errors = parity.compare(path)
    beyond = {name for name, error in errors.items() if error > parity.limit_of(name)}
    last = {"out/vision_block11_size", "out/vision_block11_tokens_video0"}
    traces = {"trace_after_layer", "tokens_before_matching", "merged_per_matching"}
    assert beyond == last | {f"trace/{name}" for name in traces}


@pytest.mark.parametrize("change", [{"joined_percent": 29}, {"patch_merges": 3}])
def test_other_schedules_are_noticed(shared: Shared, change: dict[str, Any]) -> None:
    errors = parity.compare(shared(CASE), **change)
    assert errors["trace/trace_after_layer"] > 0


def test_parameters_of_another_schedule(shared: Shared) -> None:
    with pytest.raises(UserError, match=r"not the parameters of its schedule: .*resblocks\.10"):
        parity.compare(shared(CASE), merge_layers=[8, 9], merge_clips=[2, 2])
