"""Parts that several methods are made of: free vectors, plain layers, and tokens put in and out."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from discovla.models.fused import fused_attention
from discovla.models.hooks import State


class Vectors(nn.Module):
    """Free vectors of any shape, drawn from N(0, std²)."""

    def __init__(self, *shape: int, std: float = 0.02) -> None:
        super().__init__()
        self.std = std
        self.weight = nn.Parameter(torch.empty(shape))

    def init_tensor(self, name: str, tensor: Tensor, generator: torch.Generator) -> None:
        """Normal, or zeros where the standard deviation is 0."""
        tensor.normal_(0, self.std, generator=generator) if self.std else tensor.zero_()

    def __getitem__(self, i: int | slice) -> Tensor:
        return self.weight[i]


class Linear(nn.Linear):
    """A linear map with one of PyTorch's starts.

    `default`: weight and bias uniform within 1/√in. `xavier` and `attention`: the bias is 0, the
    weight Xavier-uniform or as by default. `zero`: all zeros.
    """

    def __init__(
        self, inputs: int, outputs: int, bias: bool = True, start: str = "default"
    ) -> None:
        super().__init__(inputs, outputs, bias)
        self.start = start

    def init_tensor(self, name: str, tensor: Tensor, generator: torch.Generator) -> None:
        """By `start`."""
        bound = 1 / math.sqrt(self.in_features)
        if self.start == "zero" or (name == "bias" and self.start != "default"):
            bound = 0.0
        elif self.start == "xavier":
            bound = math.sqrt(6 / (self.in_features + self.out_features))
        tensor.uniform_(-bound, bound, generator=generator)


class LayerNorm(nn.LayerNorm):
    """PyTorch's: ones and zeros at the start."""

    def init_tensor(self, name: str, tensor: Tensor, generator: torch.Generator) -> None:
        """No random number is needed."""
        tensor.fill_(1.0 if name == "weight" else 0.0)


class Block(nn.Module):
    """A pre-norm block as in CLIP (QuickGELU, MLP four times as wide), to be trained."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = LayerNorm(width), LayerNorm(width)
        self.qkv = Linear(width, 3 * width, start="xavier")
        self.out = Linear(width, width, start="attention")
        self.fc = Linear(width, 4 * width)
        self.proj = Linear(4 * width, width)

    def forward(self, x: Tensor, hidden: Tensor | None = None, causal: bool = False) -> Tensor:
        """(N, T, D); `hidden` (N, T) bool marks keys that no token attends to."""
        q, k, v = (
            t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for t in self.qkv(self.ln_1(x)).chunk(3, -1)
        )
        seen = None if hidden is None else ~hidden[:, None, None]
        y = fused_attention(q, k, v, seen, causal)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return x + self.proj(quick_gelu(self.fc(self.ln_2(x))))


def quick_gelu(x: Tensor) -> Tensor:
    """x·sigmoid(1.702 x), the activation of OpenAI's CLIP."""
    return x * torch.sigmoid(1.702 * x)


class Bottleneck(nn.Module):
    """σ(c W_down) W_up: (…, D) to (…, D); 0 at the start (Eq. 7)."""

    def __init__(
        self, width: int, rank: int, bias: bool = True, activation: str = "quick_gelu"
    ) -> None:
        super().__init__()
        self.activation = activation
        self.down_weight = nn.Parameter(torch.empty(rank, width))
        self.up_weight = nn.Parameter(torch.empty(width, rank))
        self.down_bias = nn.Parameter(torch.empty(rank)) if bias else None
        self.up_bias = nn.Parameter(torch.empty(width)) if bias else None

    def init_tensor(self, name: str, tensor: Tensor, generator: torch.Generator) -> None:
        """Xavier-uniform and N(0, 1e-6) going down, zeros going up (released code)."""
        if name == "down_weight":
            bound = (6 / sum(tensor.shape)) ** 0.5
            tensor.uniform_(-bound, bound, generator=generator)
        elif name == "down_bias":
            tensor.normal_(0, 1e-6, generator=generator)
        else:
            tensor.zero_()

    def forward(self, c: Tensor) -> Tensor:
        """Of c (…, D)."""
        h = F.linear(c, self.down_weight, self.down_bias)
        h = F.gelu(h) if self.activation == "gelu" else quick_gelu(h)
        return F.linear(h, self.up_weight, self.up_bias)


def insert(state: State, tokens: Tensor) -> None:
    """Put tokens (n, D) or (N, n, D) behind the class tokens, or behind the start of a text."""
    tokens = tokens.expand(len(state.x), -1, -1).to(state.x.dtype)
    lead, count = state.n_lead, tokens.shape[1]
    state.x = torch.cat([state.x[:, :lead], tokens, state.x[:, lead:]], 1)
    if state.eot is not None:
        state.eot = state.eot + count
    if state.key_mask is not None:
        seen = state.key_mask.new_ones(len(state.x), count)
        state.key_mask = torch.cat([state.key_mask[:, :lead], seen, state.key_mask[:, lead:]], 1)


def drop(state: State, count: int) -> None:
    """Take out what `insert` put in."""
    lead = state.n_lead
    state.x = torch.cat([state.x[:, :lead], state.x[:, lead + count :]], 1)
    if state.eot is not None:
        state.eot = state.eot - count
    if state.key_mask is not None:
        state.key_mask = torch.cat([state.key_mask[:, :lead], state.key_mask[:, lead + count :]], 1)
