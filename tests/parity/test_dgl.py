"""DGL agrees with recorded numbers in both variants, and wrong variants are noticed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from discovla import losses, parity
from discovla.methods.parts import insert
from discovla.models.hooks import TEXT, VISION, Core, Head, State
from discovla.parity.case import Case
from discovla.parity.dgl import Recorded

Shared = Callable[[str], Path]
CASES = ["dgl_linear_public", "dgl_transformer_public"]
BOTH = pytest.mark.parametrize("name", CASES)


def case(shared: Shared, name: str) -> Path:
    return shared(f"golden_methods/{name}.json")


@BOTH
def test_outputs_and_gradients_agree(shared: Shared, name: str) -> None:
    path = case(shared, name)
    errors = parity.compare(path)
    parts = ("in_proj_bias.q", "in_proj_bias.k", "in_proj_bias.v")
    assert {n[:-2] if n.endswith(parts) else n for n in errors} == set(Case.read(path).wanted)
    assert parity.within_limits(errors), {n: e for n, e in errors.items() if e > parity.limit_of(n)}


class ThroughTheNorm(Recorded):
    """Global prompts pass the first LayerNorm."""

    def embed(self, state: State, when: str) -> None:
        super().embed(state, "after" if when == "before" else "before")


class GlobalsAnew(Recorded):
    """Every block starts from the global prompts as they are trained."""

    def pre_layer(self, i: int, state: State) -> None:
        if state.tower == VISION:
            state.x = state.x.clone()
            state.x[:, 1 : 1 + self.count] = self.global_prompts[:]
        super().pre_layer(i, state)


class LocalsKept(Recorded):
    """Local prompts of the first block go on through all blocks."""

    def pre_layer(self, i: int, state: State) -> None:
        if i == 0 or state.tower == TEXT:
            super().pre_layer(i, state)
        else:
            insert(state, state.aux["kept"])

    def post_layer(self, i: int, state: State) -> None:
        state.aux["kept"] = state.x[:, 1 : 1 + self.count]
        super().post_layer(i, state)


class BlindFrames(Recorded):
    """Frames do not see the global prompts."""

    def attend(self, i: int, state: State, q: Tensor, k: Tensor, v: Tensor, core: Core) -> Tensor:
        if state.tower == VISION:
            state.key_bias = q.new_zeros(q.shape[:2])
            state.key_bias[:, 1 + self.count : 1 + 2 * self.count] = float("-inf")
        return super().attend(i, state, q, k, v, core)


View = tuple[Tensor, Tensor, Tensor]


class ClassesAlone(Recorded):
    """Global prompts see themselves and the frames' class tokens."""

    def _global_view(
        self, state: State, q: Tensor, k: Tensor, v: Tensor, start: int, stop: int
    ) -> View:
        q, k, v = super()._global_view(state, q, k, v, start, stop)
        size = (k.shape[1] - self.count) // state.groups
        places = [*range(self.count), *range(self.count, k.shape[1], size)]
        return q, k[:, places], v[:, places]


class BlindGlobals(Recorded):
    """Global prompts do not see themselves."""

    def _global_view(
        self, state: State, q: Tensor, k: Tensor, v: Tensor, start: int, stop: int
    ) -> View:
        q, k, v = super()._global_view(state, q, k, v, start, stop)
        return q, k[:, self.count :], v[:, self.count :]


class FrameMean(Recorded):
    """The video's feature is the mean of its normalised frames."""

    def pool(self, frames: Tensor, mask: Tensor | None) -> Tensor:
        return losses.mean_pool(frames[:, self.count :])


class NotCausal(Recorded):
    """Words of a text see the later ones."""

    def begin(self, state: State) -> None:
        state.causal = False
        super().begin(state)


class EndNotShifted(Recorded):
    """The text is read where its end mark stood before."""

    def readout(self, state: State, head: Head) -> Tensor:
        if state.eot is not None:
            state.eot = (state.eot - self.count).clamp(min=0)
        return super().readout(state, head)


class WordsMoveOn(Recorded):
    """Prefix prompts of the first block take rows of the positional table."""

    def embed(self, state: State, when: str) -> None:
        super().embed(state, when)
        if state.tower == TEXT and when == "before":
            insert(state, state.aux["prompts"][0])

    def pre_layer(self, i: int, state: State) -> None:
        if i > 0 or state.tower == VISION:
            super().pre_layer(i, state)


class PostfixFirst(Recorded):
    """Prefix and postfix prompts are exchanged."""

    def begin(self, state: State) -> None:
        super().begin(state)
        if state.tower == TEXT:
            state.aux["prompts"] = self.prompts.texts()[:, self.count :]


@BOTH
@pytest.mark.parametrize(
    ("wrong", "tower"),
    [
        (ThroughTheNorm, VISION),
        (GlobalsAnew, VISION),
        (LocalsKept, VISION),
        (BlindFrames, VISION),
        (ClassesAlone, VISION),
        (BlindGlobals, VISION),
        (FrameMean, VISION),
        (NotCausal, TEXT),
        (EndNotShifted, TEXT),
        (WordsMoveOn, TEXT),
        (PostfixFirst, TEXT),
    ],
)
def test_wrong_variants_are_noticed(
    shared: Shared, name: str, wrong: type[Recorded], tower: str
) -> None:
    errors = parity.compare(case(shared, name), kind=wrong)
    noticed, untouched = ("out/video_feat", "out/text_feat")[:: 1 if tower == VISION else -1]
    assert errors[noticed] > 100 * parity.limit_of(noticed)
    assert errors[untouched] <= parity.limit_of(untouched)
    assert max(e for n, e in errors.items() if n.startswith("grad/")) > 1e-2


@BOTH
def test_other_pools_are_noticed(shared: Shared, name: str) -> None:
    errors = parity.compare(case(shared, name), pool="globals")
    beyond = {n for n, e in errors.items() if n.startswith("out/") and e > parity.limit_of(n)}
    of_video = {"video_feat", "eval_video", "eval_sim", "logits_t2v", "logits_v2t"}
    assert beyond == {f"out/{n}" for n in of_video | {"loss", "loss_t2v", "loss_v2t"}}
