"""Prompts that are wrong on purpose, to be put before a method of the kind of `Prompt`."""

from __future__ import annotations

from torch import Tensor

from discovla.methods.parts import insert
from discovla.methods.prompt import Prompt
from discovla.models.hooks import TEXT, VISION, Head, State


class WithoutPositions(Prompt):
    """Words move on, but text prompts have no position themselves."""

    def embed(self, state: State, when: str) -> None:
        super().embed(state, when)
        if when == "after" and state.tower == TEXT:
            prompts = self.block_prompts(0, state)
            state.x = state.x.clone()
            state.x[:, 1 : 1 + len(prompts)] = prompts


class WordsKeepRows(Prompt):
    """Positions are added before text prompts come in."""

    def embed(self, state: State, when: str) -> None:
        if when == ("after" if state.tower == TEXT else "before"):
            self._enter(0, state)


class BehindTheNorm(Prompt):
    """Vision prompts do not pass the first LayerNorm."""

    def embed(self, state: State, when: str) -> None:
        if when == ("after" if state.tower == VISION else "before"):
            self._enter(0, state)


class Kept(Prompt):
    """The first block's prompts go on through all blocks."""

    def pre_layer(self, i: int, state: State) -> None:
        pass

    def post_layer(self, i: int, state: State) -> None:
        pass


class AddedToTheKept(Prompt):
    """What became of prompts stays, and every block adds its own."""

    def pre_layer(self, i: int, state: State) -> None:
        if i > 0:
            insert(state, self.block_prompts(i, state))

    def post_layer(self, i: int, state: State) -> None:
        pass


class EndNotShifted(Prompt):
    """The text is read where its end mark stood before."""

    def readout(self, state: State, head: Head) -> Tensor:
        if state.eot is not None:
            state.eot = (state.eot - state.aux["prompts"]).clamp(min=0)
        return super().readout(state, head)


class NotCausal(Prompt):
    """Words of a text see the later ones."""

    def begin(self, state: State) -> None:
        state.causal = False


WRONG: list[tuple[type[Prompt], str]] = [
    (WithoutPositions, TEXT),
    (WordsKeepRows, TEXT),
    (EndNotShifted, TEXT),
    (NotCausal, TEXT),
    (BehindTheNorm, VISION),
    (Kept, VISION),
    (AddedToTheKept, VISION),
]
"""Each with the tower whose features must show it."""
