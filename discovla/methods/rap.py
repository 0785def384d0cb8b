"""RAP, reconstructed: low-rank modulation over frames, and patches that look beside themselves.

RAP's authors released no code, and its paper leaves open where its parts stand, how large they are
and what the text has to do with them at inference. This fills in the simplest choice that keeps
two towers apart and comes to the printed 1.06 M. It is called a reconstruction everywhere.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from discovla.methods.parts import Linear, Vectors
from discovla.models.hooks import TEXT, VISION, Core, Dims, Method, State
from discovla.settings import RunSettings

_TEXT_OPS = {"ln_1": 1, "qkv": 3, "out": 1, "ln_2": 1, "fc": 4, "proj": 1}
"""Norms and linear maps of a text block, and the width of their results over the model's."""


class LowRankModulation(nn.Module):
    """Scale 1 + A_s B_s and shift A_c B_c of each frame, (F, D) of rank r; 1 and 0 at the start."""

    def __init__(self, frames: int, width: int, rank: int) -> None:
        super().__init__()
        self.frames = Vectors(2, frames, rank)
        self.features = Vectors(2, rank, width, std=0.0)

    def forward(self, y: Tensor, state: State) -> Tensor:
        """(batch · frames, T, D), the same for all tokens of a frame."""
        scale, shift = self.frames[:][:, : state.groups] @ self.features[:]
        y = y.unflatten(0, (state.batch, state.groups))
        return (y * (1 + scale[:, None]) + shift[:, None]).flatten(0, 1)


class Modulation(nn.Module):
    """A scale and a shift per feature; ones and zeros at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(width))
        self.shift = nn.Parameter(torch.empty(width))

    def init_tensor(self, name: str, tensor: Tensor, generator: torch.Generator) -> None:
        """No change at the start."""
        tensor.fill_(1.0 if name == "scale" else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """(…, D)."""
        return x * self.scale + self.shift


class RAP(Method):
    """Vision: modulation behind attention and MLP, displaced keys and values; text: modulation.

    In every vision block the patches most like their frame's class token (a share `displaced` of
    them) are given keys and values from (t + δ, y + γ_y, x + γ_x), interpolated between frames and
    patches; a linear map of the patch gives the offsets, 0 at the start. The paper scores patches
    by the text, which would tie the towers together at inference.
    """

    source = "Cao et al., 2024 (RAP); our reconstruction from its abstract and figures"

    def __init__(self, dims: Dims, settings: RunSettings) -> None:
        super().__init__(dims, settings)
        options, vision, text = settings.options, dims.vision, dims.text
        rank = options.modulation_rank  # type: ignore[attr-defined]
        self.displaced = int(options.displaced * (vision.tokens - 1))  # type: ignore[attr-defined]
        self.low_rank = nn.ModuleList(
            nn.ModuleDict(
                {
                    site: LowRankModulation(settings.frames, vision.width, rank)
                    for site in ("attention", "mlp")
                }
            )
            for _ in range(vision.layers)
        )
        self.offsets = nn.ModuleList(
            Linear(vision.width, 3, start="zero") for _ in self.low_rank if self.displaced
        )
        self.text = nn.ModuleList(
            nn.ModuleDict({op: Modulation(n * text.width) for op, n in _TEXT_OPS.items()})
            for _ in range(text.layers)
        )

    def gaps(self) -> list[str]:
        """Vision, as the paper (§1) says of it."""
        return ["vision"]

    def inner(self, i: int, state: State, op: str, x: Tensor) -> Tensor:
        """Text: scale and shift."""
        return x if state.tower == VISION else self.text[i][op](x)  # type: ignore[index]

    def attn_out(self, i: int, state: State, y: Tensor) -> Tensor:
        """Vision: low-rank modulation."""
        return y if state.tower == TEXT else self.low_rank[i]["attention"](y, state)  # type: ignore[index]

    def mlp_out(self, i: int, state: State, y: Tensor) -> Tensor:
        """Vision: low-rank modulation."""
        return y if state.tower == TEXT else self.low_rank[i]["mlp"](y, state)  # type: ignore[index]

    def qkv(self, i: int, state: State, h: Tensor, qkv: Tensor) -> Tensor:
        """Vision: remember the block's normed input, of which offsets are made."""
        state.aux["normed"] = h
        return qkv

    def attend(self, i: int, state: State, q: Tensor, k: Tensor, v: Tensor, core: Core) -> Tensor:
        """Vision: keys and values of the chosen patches come from beside them."""
        if state.tower == VISION and self.displaced:
            h = state.aux.pop("normed")
            chosen = choose(h, self.displaced)
            offsets = self.offsets[i](h.gather(1, _wide(chosen, h)))
            k, v = displace(torch.cat([k, v], -1), chosen, offsets, state.groups).chunk(2, -1)
        return super().attend(i, state, q, k, v, core)


def choose(h: Tensor, count: int) -> Tensor:
    """(N, count) places of the patches most like their class token, by cosine; h is (N, T, D)."""
    likeness = F.cosine_similarity(h[:, 1:], h[:, :1], dim=-1)
    return likeness.topk(count, dim=1).indices + 1


def displace(x: Tensor, chosen: Tensor, offsets: Tensor, frames: int) -> Tensor:
    """Replace chosen patches by what lies beside them.

    Args:
        x: (batch · frames, 1 + H·W, D) tokens, H = W.
        chosen: (batch · frames, n) places of patches.
        offsets: (batch · frames, n, 3) in frames, rows and columns; beyond the border counts the
            border, where an offset across it gets no gradient.
        frames: F.

    Returns:
        x with the chosen patches interpolated linearly between their neighbours.
    """
    side = round((x.shape[1] - 1) ** 0.5)
    volume = x[:, 1:].unflatten(0, (-1, frames)).unflatten(2, (side, side))  # (B, F, H, W, D)
    frame = torch.arange(len(x), device=x.device)[:, None] % frames
    place = torch.stack(
        [frame.expand_as(chosen), (chosen - 1) // side, (chosen - 1) % side], dim=-1
    )
    # From pageable memory, but nothing waits for what the device still has to do.
    ends = torch.tensor([frames - 1, side - 1, side - 1]).to(x.device, non_blocking=True)
    at = (place + offsets) / ends.clamp(min=1) * 2 - 1  # -1 is the first, 1 the last
    at = at.flip(-1).unflatten(0, (-1, frames))  # grid_sample wants x, y, t
    found = F.grid_sample(
        volume.permute(0, 4, 1, 2, 3),
        at[:, :, :, None].to(x.dtype),
        padding_mode="border",
        align_corners=True,
    )
    values = found[..., 0].permute(0, 2, 3, 1).flatten(0, 1)
    return x.scatter(1, _wide(chosen, x), values)


def _wide(places: Tensor, like: Tensor) -> Tensor:
    """(N, n) places as an index into (N, T, D)."""
    return places[..., None].expand(-1, -1, like.shape[-1])
