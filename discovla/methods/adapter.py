"""Adapter: a small bottleneck with a residual behind the MLP of every block of both towers."""

from __future__ import annotations

from torch import Tensor, nn

from discovla.methods.parts import Bottleneck
from discovla.models.hooks import TEXT, VISION, Dims, Method, State, tokenwise
from discovla.settings import RunSettings


class Adapter(Method):
    """One bottleneck per block: 261,312 values at width 8, which fits the printed 0.26 M.

    The paper names the method only (Table 1). Two per block would be twice as many, so that there
    is one; that it stands behind the MLP and uses QuickGELU is our choice.
    """

    source = "Houlsby et al., 2019; places and activation are ours"

    def __init__(self, dims: Dims, settings: RunSettings) -> None:
        super().__init__(dims, settings)
        rank = settings.options.bottleneck  # type: ignore[attr-defined]
        self.adapters = nn.ModuleDict(
            {
                tower: nn.ModuleList(
                    Bottleneck(dims.tower(tower).width, rank)
                    for _ in range(dims.tower(tower).layers)
                )
                for tower in (VISION, TEXT)
            }
        )

    @tokenwise
    def mlp_out(self, i: int, state: State, y: Tensor) -> Tensor:
        """Add the bottleneck's result."""
        blocks: nn.ModuleList = self.adapters[state.tower]  # type: ignore[assignment]
        return y + blocks[i](y)
