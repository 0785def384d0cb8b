"""The arithmetic of a block by the fastest kernel that computes the same: rounding differs only.

What is chosen depends on device, type and shape alone, never on a timing, so that a run repeated
on the same machine gives the same bits.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from discovla.models.fused import fused_attention

_GELU_SLOPE = 1.702
_MIN_FLOPS = 2**21
"""Below this a matrix product is over before another kernel is prepared for it."""
_SHORT_HEAD = 32
"""Heads this narrow give a fused attention on a CPU less work than its own bookkeeping."""


@cache
def prefers_onednn() -> bool:
    """Whether oneDNN multiplies float32 matrices faster than what torch takes on this CPU.

    torch takes MKL, which on AMD's processors keeps to 256-bit vectors; oneDNN uses the 512 bits
    that they have, at twice the rate on Zen 5. Both are float32 throughout.
    """
    return (
        torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and "AuthenticAMD" in _processor()
    )


def _processor() -> str:
    """Who made the processor."""
    listed = Path("/proc/cpuinfo")
    return listed.read_text(encoding="utf-8") if listed.is_file() else platform.processor()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`: x (…, K) by weight (N, K) to (…, N)."""
    if (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() * len(weight) >= _MIN_FLOPS
        and not torch.is_autocast_enabled("cpu")
        and prefers_onednn()
    ):
        rows: Tensor = _OneDNNLinear.apply(x.flatten(0, -2), weight, bias)
        return rows.unflatten(0, x.shape[:-1])
    return F.linear(x, weight, bias)


class _OneDNNLinear(torch.autograd.Function):
    """A linear map of rows by oneDNN; of a frozen weight nothing but the weight is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        return _product(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        return (
            _product(grad, weight.t(), None) if wants_x else None,
            _product(grad.t(), x.t(), None) if wants_weight else None,
            grad.sum(0) if wants_bias else None,
        )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return found


def activation(module: nn.Module, x: Tensor) -> Tensor:
    """What an MLP applies between its linear maps; x may be changed."""
    if isinstance(module, QuickGELU):
        return quick_gelu(x)
    found: Tensor = module(x)
    return found


def quick_gelu(x: Tensor) -> Tensor:
    """x·sigmoid(1.702 x), keeping one tensor of x's size for the backward pass, not two."""
    found: Tensor = _QuickGELU.apply(x)
    return found


class _QuickGELU(torch.autograd.Function):
    """silu(u) / 1.702 with u = 1.702 x, whose derivative by x is silu'(u)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        u = x * _GELU_SLOPE
        ctx.save_for_backward(u)
        return F.silu(u).mul_(1 / _GELU_SLOPE)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (u,) = ctx.saved_tensors
        return torch.ops.aten.silu_backward(grad, u)  # type: ignore[no-any-return]


def normed(norm: nn.Module, x: Tensor) -> Tensor:
    """A LayerNorm in float32, its result in the type that the linear maps after it compute in.

    Autocast would cast once for every map that reads it.
    """
    found: Tensor = norm(x)
    kind = x.device.type
    return found.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else found


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool) -> Tensor:
    """Softmax attention of q (N, H, Tq, d) over k, v (N, H, Tk, d).

    Args:
        q: queries.
        k: keys.
        v: values.
        bias: added to the logits, of a shape that goes with (N, H, Tq, Tk).
        causal: query t sees keys up to t; without a bias, and with Tq = Tk.

    Fused, except on a CPU where that loses: in half precision (its backward pass takes five times
    as long) and for narrow heads. Logits and softmax are float32 either way.
    """
    if q.device.type != "cpu" or (q.dtype == torch.float32 and q.shape[-1] >= _SHORT_HEAD):
        return fused_attention(q, k, v, bias, causal)
    with torch.autocast("cpu", enabled=False):
        logits = (q.float() * q.shape[-1] ** -0.5) @ k.float().transpose(-2, -1)
        if causal:
            bias = logits.new_full(logits.shape[-2:], float("-inf")).triu(1)
        if bias is not None:
            logits = logits + bias
        return logits.softmax(-1).to(v.dtype) @ v
