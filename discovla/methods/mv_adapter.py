"""MV-Adapter: bottlenecks that mix frames over time, tied between the towers at the top."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from discovla.methods.parts import Block, LayerNorm, Linear, Vectors, quick_gelu
from discovla.models.hooks import TEXT, VISION, Dims, Method, State
from discovla.settings import RunSettings

SCALE = 0.1
_POSITION_STD = 0.01


class Bottleneck(nn.Module):
    """Down, a small transformer block, up; the way down may be scaled by a vector of both towers.

    The factor multiplies the weight; since the map that makes it starts at random values around 0,
    tied layers start with a shrunk way down. Up starts at 0.
    """

    def __init__(self, width: int, positions: int, options: object, tied: bool) -> None:
        super().__init__()
        inner: int = options.bottleneck  # type: ignore[attr-defined]
        self.side: str = options.tie  # type: ignore[attr-defined]
        self.down = Linear(width, inner)
        self.up = Linear(inner, width, start="zero")
        self.position = Vectors(positions, inner, std=_POSITION_STD)
        self.ln = LayerNorm(inner)
        self.block = Block(inner, options.adapter_heads)  # type: ignore[attr-defined]
        if tied:
            scaled = width if self.side == "input" else inner
            self.tie = Linear(options.tie_width, scaled)  # type: ignore[attr-defined]

    def shrink(self, y: Tensor, shared: Tensor | None) -> Tensor:
        """(…, D) to (…, d'), the weight scaled where the layer is tied."""
        weight = self.down.weight
        if shared is not None:
            factor = self.tie(shared)
            weight = weight * (factor if self.side == "input" else factor[:, None])
        return F.linear(y, weight, self.down.bias)


class TextBottleneck(Bottleneck):
    """Words, each with its position, through a causal block."""

    def forward(self, y: Tensor, shared: Tensor | None) -> Tensor:
        """(N, W, D) to (N, W, D)."""
        h = self.shrink(y, shared)
        h = self.block(self.ln(h + self.position[: h.shape[1]]), causal=True)
        result: Tensor = self.up(quick_gelu(h))
        return result


class VideoBottleneck(Bottleneck):
    """Frames meet in [one learned token, class tokens, patch means]; patches pass for themselves.

    What comes back to a class token is calibrated: times 1 + W₂ ReLU(W₁ [class + patch mean of the
    frame; G of the learned token]), W₂ = 0 at the start.
    """

    def __init__(self, width: int, frames: int, options: object, tied: bool) -> None:
        super().__init__(width, 2 * frames + 1, options, tied)
        inner: int = options.bottleneck  # type: ignore[attr-defined]
        hidden: int = options.calibration_width  # type: ignore[attr-defined]
        self.token = Vectors(inner, std=_POSITION_STD)
        self.token_map = Linear(inner, inner)
        self.squeeze = Linear(2 * inner, hidden)
        self.excite = Linear(hidden, inner, bias=False, start="zero")

    def forward(self, y: Tensor, state: State, shared: Tensor | None) -> Tensor:
        """(batch · frames, T, D) to the same."""
        h = quick_gelu(self.shrink(y, shared))
        cls, patches = h[:, 0], h[:, 1:]
        mixed = self._over_time(cls, patches.mean(1), state)
        token, frames, means = mixed.tensor_split([1, 1 + state.groups], 1)
        alpha = self.calibration(frames, means, token, state)
        lead = (alpha * frames).flatten(0, 1)[:, None]
        result: Tensor = self.up(torch.cat([lead, patches], 1))
        return result

    def _over_time(self, cls: Tensor, means: Tensor, state: State) -> Tensor:
        """(batch, 1 + 2F, d'): learned token, class tokens and patch means after the block."""
        parts = [t.unflatten(0, (state.batch, state.groups)) for t in (cls, means)]
        token = self.token[:].expand(state.batch, 1, -1)
        x = torch.cat([token, *parts], 1)
        hidden = None
        if state.frame_mask is not None:
            padded = state.frame_mask == 0
            hidden = torch.cat([padded.new_zeros(state.batch, 1), padded, padded], 1)
        x = self.ln(x + self.position[: x.shape[1]])
        return quick_gelu(self.block(x, hidden))

    def calibration(self, frames: Tensor, means: Tensor, token: Tensor, state: State) -> Tensor:
        """Factors (batch, F, d') on what comes back to the class tokens."""
        seen = torch.cat([frames + means, self.token_map(token).expand_as(frames)], -1)
        if state.frame_mask is not None:
            seen = seen * state.frame_mask[..., None].to(seen.dtype)
        factors: Tensor = 1 + self.excite(torch.relu(self.squeeze(seen)))
        return factors


class MVAdapter(Method):
    """A bottleneck behind every MLP, scaled by 0.1, and every bias of CLIP.

    The printed shares fit tying on the input side; the released configuration of MSRVTT ties on
    the output side. MV-Adapter's rate for CLIP's biases is 1/50 of that for the adapters.
    """

    source = "Jin et al., 2024 (MV-Adapter); described after zhangbw17/MV-Adapter 08a61f3"

    def __init__(self, dims: Dims, settings: RunSettings) -> None:
        super().__init__(dims, settings)
        options = settings.options
        tied: int = options.tied_layers  # type: ignore[attr-defined]
        self.bias_factor: float = options.clip_bias_lr  # type: ignore[attr-defined]
        width: int = options.tie_width  # type: ignore[attr-defined]
        self.shared = nn.ModuleList(Vectors(width, std=0.0) for _ in range(tied))
        kinds = {VISION: (VideoBottleneck, settings.frames), TEXT: (TextBottleneck, settings.words)}
        self.adapters = nn.ModuleDict(
            {
                tower: nn.ModuleList(
                    kind(dims.tower(tower).width, size, options, self._tie(i, tower) is not None)
                    for i in range(dims.tower(tower).layers)
                )
                for tower, (kind, size) in kinds.items()
            }
        )

    def _tie(self, i: int, tower: str) -> int | None:
        """Which of the shared vectors scales block i; the lowest tied block has the first."""
        number = i - (self.dims.tower(tower).layers - len(self.shared))
        return number if number >= 0 else None

    def gaps(self) -> list[str]:
        """Vision, as the paper (§1) says of it."""
        return ["vision"]

    def trainable(self, clip: nn.Module) -> dict[str, float]:
        """Every bias of CLIP, those of the norms among them."""
        names = [n for n, _ in clip.named_parameters() if n.endswith("bias")]
        return dict.fromkeys(names, self.bias_factor) if self.bias_factor else {}

    def decays(self, name: str) -> bool:
        """In MV-Adapter's optimiser CLIP's biases decay and the adapters' do not."""
        return name.startswith("clip.") or super().decays(name)

    def mlp_out(self, i: int, state: State, y: Tensor) -> Tensor:
        """Add the bottleneck's result."""
        return y + SCALE * self.adapted(i, state, y)

    def adapted(self, i: int, state: State, y: Tensor) -> Tensor:
        """What block i's bottleneck makes of its MLP's result."""
        number = self._tie(i, state.tower)
        shared = None if number is None else self.shared[number][:]  # type: ignore[index]
        adapter: nn.Module = self.adapters[state.tower][i]  # type: ignore[index]
        found: Tensor = adapter(y, state, shared) if state.tower == VISION else adapter(y, shared)
        return found
