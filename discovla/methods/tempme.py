"""TempMe: LoRA, and vision tokens that are merged inside clips and across neighbouring clips.

A clip starts as one frame. In the blocks of the schedule neighbouring clips are joined into one
sequence, so that late attention is spatio-temporal; similar tokens become one all the way, so that
it stays cheap. The text tower is plain LoRA.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from discovla.errors import UserError
from discovla.methods.lora import LoRA
from discovla.methods.options import TempMeOptions
from discovla.models.hooks import VISION, Dims, State, tokenwise
from discovla.settings import RunSettings


class Matching(NamedTuple):
    """Which of T tokens stay and which r of them go into others; places, int64."""

    kept: Tensor
    """(N, T - r) old places of the tokens that stay, in their new order."""
    gone: Tensor
    """(N, r) old places of the tokens that go, the most similar first."""
    into: Tensor
    """(N, r) new places of the tokens that they go into."""


@torch.no_grad()
def match(metric: Tensor, lead: int, count: int) -> Matching:
    """Bipartite matching: patches at even places may go into patches at odd places.

    Places are counted over the whole sequence. The `count` sources nearest (cosine) to any target
    go, each into its nearest. The new order is class tokens, sources that stay, all targets; the
    next matching splits that order again.

    Args:
        metric: (N, T, C), what tokens are compared by.
        lead: class tokens at the front; they neither go nor receive.
        count: r, at most `largest_count(T, lead)`.
    """
    tokens = torch.arange(metric.shape[1], device=metric.device).expand(metric.shape[:2])
    even, odd = slice(lead + lead % 2, None, 2), slice(lead + 1 - lead % 2, None, 2)
    unit = F.normalize(metric.float(), dim=-1)
    similarity, nearest = (unit[:, even] @ unit[:, odd].transpose(1, 2)).max(-1)
    order = similarity.argsort(dim=-1, descending=True, stable=True)
    gone, stay = order[:, :count], order[:, count:].sort(-1).values
    sources = tokens[:, even]
    kept = torch.cat([tokens[:, :lead], sources.gather(1, stay), tokens[:, odd]], 1)
    into = lead + stay.shape[1] + nearest.gather(1, gone)
    return Matching(kept, sources.gather(1, gone), into)


def largest_count(tokens: int, lead: int) -> int:
    """How many of a sequence's tokens can go at once: half of its patches."""
    return (tokens - lead) // 2


def merge(matching: Matching, x: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Means of x (N, T, D) weighted by size (N, T), and their sizes: T - r tokens are left.

    Gradients flow through the means, not through the choice.
    """

    def total(values: Tensor) -> Tensor:  # by rows: one index per token
        flat = values.flatten(0, 1)
        kept, gone = (flat[_rows(places, x.shape[1])] for places in matching[:2])
        joined = kept.index_add(0, _rows(matching.into, matching.kept.shape[1]), gone)
        return joined.unflatten(0, (len(values), -1))

    sizes = total(size)
    return total(x * size[..., None]) / sizes[..., None], sizes


def _rows(places: Tensor, tokens: int) -> Tensor:
    """Places (N, n) in sequences of `tokens` as rows of all sequences under each other."""
    first = torch.arange(len(places), device=places.device) * tokens
    return (places + first[:, None]).flatten()


def join(x: Tensor, lead: int, factor: int) -> Tensor:
    """`factor` neighbouring sequences (N, T, ...) become one: all class tokens, then all patches.

    Returns:
        (N / factor, factor · T, ...).
    """
    clips = x.unflatten(0, (-1, factor))
    return torch.cat([clips[:, :, :lead].flatten(1, 2), clips[:, :, lead:].flatten(1, 2)], 1)


class ClipPosition(nn.Module):
    """What tells clips apart when they are joined: one vector per clip, the same for its tokens."""

    def __init__(self, clips: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(clips, width))

    def init_tensor(self, name: str, tensor: Tensor, generator: torch.Generator) -> None:
        """Zeros."""
        tensor.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Add to (batch · clips, T, D)."""
        return (x.unflatten(0, (-1, len(self.weight))) + self.weight[:, None]).flatten(0, 1)


class TempMe(LoRA):
    """LoRA with the schedule of `TempMeOptions`; frames are read out one by one, in their order.

    Every block merges between attention and MLP, by its keys averaged over heads: `patch_merges`
    tokens below the first block that joins, `inner_percent` of all tokens from there on. A block
    that joins merges `joined_percent` of all tokens before its attention as well, by its raw
    input; clip positions are added after that comparison and before that merge, to class tokens
    too, and also where the share is 0 (there the released code leaves them out). A token that
    stands for n counts n times in the attention.

    Before training this is not mean-pooled CLIP: tokens merge from the start. The merge of the last
    block changes no feature, since only class tokens are read after it.
    """

    source = "Shen et al., 2025 (TempMe); LunarShen/TempMe at e624930"

    def __init__(self, dims: Dims, settings: RunSettings) -> None:
        super().__init__(dims, settings)
        assert isinstance(settings.options, TempMeOptions)
        self.options = settings.options
        layers = self.options.merge_layers
        self.factors = dict(zip(layers, self.options.merge_clips, strict=True))
        self.first = min(layers, default=dims.vision.layers)
        """The lowest block that joins clips."""
        self.clip_position = nn.ModuleDict()
        clips = settings.frames
        for layer, factor in self.factors.items():
            self.clip_position[str(layer)] = ClipPosition(clips, dims.vision.width)
            clips //= factor

    def gaps(self) -> list[str]:
        """Vision, where clips are joined."""
        return ["vision"] if self.factors else []

    def begin(self, state: State) -> None:
        """Clip positions belong to a number of frames; raise `UserError` for another."""
        frames = self.settings.frames
        if state.tower == VISION and self.factors and state.groups != frames:
            raise UserError(
                f"{state.groups} frames per clip given to TempMe, whose schedule and positions are "
                f"for {frames}; set frames to {state.groups}, with factors (merge_clips) to fit, "
                "and train that run"
            )

    def pre_layer(self, i: int, state: State) -> None:
        """Join clips and merge across them."""
        if state.tower != VISION or i not in self.factors:
            return
        lead, factor = state.n_lead, self.factors[i]
        raw = join(state.x.detach(), lead, factor)
        state.x = join(self.clip_position[str(i)](state.x), lead, factor)
        state.groups //= factor
        state.n_lead *= factor
        if state.size is not None:
            state.size = join(state.size, lead, factor)
            state.key_bias = state.size.log()
        self.shorten(state, raw, self._share(self.options.joined_percent, state))

    # Only patches merge: in the last block that reaches no class token.
    @tokenwise
    def mid_layer(self, i: int, state: State, k: Tensor) -> None:
        """Merge inside clips, or inside what was joined."""
        if state.tower != VISION:
            return
        keys = k.detach().unflatten(-1, (self.dims.vision.heads, -1)).mean(2)
        apart = i < self.first
        share = self._share(self.options.inner_percent, state)
        self.shorten(state, keys, self.options.patch_merges if apart else share)

    @staticmethod
    def _share(percent: int, state: State) -> int:
        return percent * state.x.shape[1] // 100

    def shorten(self, state: State, metric: Tensor, count: int) -> None:
        """Merge `count` tokens, or as many as can be, of every sequence."""
        count = min(count, largest_count(state.x.shape[1], state.n_lead))
        if count == 0:  # not even the order changes
            return
        size = state.x.new_ones(state.x.shape[:2]) if state.size is None else state.size
        matching = match(metric, state.n_lead, count)
        state.x, state.size = merge(matching, state.x, size)
        state.key_bias = state.size.log()
