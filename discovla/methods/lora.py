"""LoRA on the fused query, key and value projection of every block of both towers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from discovla.models.hooks import TEXT, VISION, Dims, Method, State
from discovla.settings import RunSettings


class LowRank(nn.Module):
    """ΔW = b a for a fused (3D, D) weight: ONE a (r, D) for q, k and v, b (3D, r), no scaling."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(rank, width))
        self.b = nn.Parameter(torch.empty(3 * width, rank))

    def init_tensor(self, name: str, tensor: Tensor, generator: torch.Generator) -> None:
        """Kaiming-uniform with slope √5 for a, zero for b."""
        if name == "a":
            bound = tensor.shape[1] ** -0.5
            tensor.uniform_(-bound, bound, generator=generator)
        else:
            tensor.zero_()

    def forward(self, qkv: Tensor, h: Tensor) -> Tensor:
        """qkv (…, 3D) + ΔW h (…, D), in qkv's own memory: ΔW h is held nowhere."""
        low = F.linear(h, self.a).to(qkv.dtype)
        qkv.flatten(0, -2).addmm_(low.flatten(0, -2), self.b.t().to(qkv.dtype))
        return qkv


class LoRA(Method):
    """The common base of TempMe and DiscoVLA; output projections and MLPs stay as they are."""

    source = "Hu et al., 2022; sharing and places as in LunarShen/DsicoVLA"

    def __init__(self, dims: Dims, settings: RunSettings) -> None:
        super().__init__(dims, settings)
        self.lora = nn.ModuleDict(
            {
                tower: nn.ModuleList(
                    LowRank(dims.tower(tower).width, settings.lora_rank)
                    for _ in range(dims.tower(tower).layers)
                )
                for tower in (VISION, TEXT)
            }
        )

    def qkv(self, i: int, state: State, h: Tensor, qkv: Tensor) -> Tensor:
        """Add the low-rank part; there is none left once it is merged (`models.merging`)."""
        if not self.lora:
            return qkv
        blocks: nn.ModuleList = self.lora[state.tower]  # type: ignore[assignment]
        return blocks[i](qkv, h)
