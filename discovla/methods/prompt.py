"""Prompt: free vectors in every block of both towers, independent of each other."""

from __future__ import annotations

from torch import Tensor, nn

from discovla.methods.parts import Vectors, drop, insert
from discovla.models.hooks import TEXT, VISION, Dims, Method, State
from discovla.settings import RunSettings


class Prompt(Method):
    """Independent vision-language prompting: n vectors behind CLS and behind the start mark.

    They are dropped after every block, and the next block has its own. In the first block the text
    prompts take rows 1 to n of the positional table, so that the words move on by n; vision prompts
    have no position and pass the first LayerNorm.

    The cited MaPLe has 3.56 M values; only independent prompts come to the printed 0.08 M.
    """

    source = "Khattak et al., 2023 (IVLP); muzairkhattak/multimodal-prompt-learning"

    def __init__(self, dims: Dims, settings: RunSettings) -> None:
        super().__init__(dims, settings)
        count = settings.options.prompts  # type: ignore[attr-defined]
        self.prompts = nn.ModuleDict(
            {
                tower: Vectors(dims.tower(tower).layers, count, dims.tower(tower).width)
                for tower in (VISION, TEXT)
            }
        )

    def block_prompts(self, i: int, state: State) -> Tensor:
        """Prompts of block i, (n, D) or (batch · groups, n, D)."""
        prompts: Tensor = self.prompts[state.tower][i]  # type: ignore[index]
        return prompts

    def embed(self, state: State, when: str) -> None:
        """Prompts of the first block, before positions (text) and LayerNorm (vision)."""
        if when == "before":
            self._enter(0, state)

    def pre_layer(self, i: int, state: State) -> None:
        """Prompts of the other blocks."""
        if i > 0:
            self._enter(i, state)

    def _enter(self, i: int, state: State) -> None:
        prompts = self.block_prompts(i, state)
        state.aux["prompts"] = prompts.shape[-2]
        insert(state, prompts)

    def post_layer(self, i: int, state: State) -> None:
        """Their results are not used."""
        drop(state, state.aux["prompts"])
