"""BertAdam, the optimiser of CLIP4Clip and MV-Adapter, also with matrices in half precision."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

_NORM_EPS = 1e-6
"""Keeps the clipping of a zero gradient defined, as in torch's own clipping."""


class BertAdam(torch.optim.Optimizer):
    """Adam without bias correction, with decoupled weight decay and a clip per tensor.

    m ← β₁ m + (1 - β₁) g, v ← β₂ v + (1 - β₂) g², p ← p - lr (m / (√v + ε) + decay · p), where g is
    the gradient scaled to a norm of at most `max_norm`. The learning rate's schedule is the
    caller's.

    In a group with `half` set, values are rounded to half precision when the group is added, and
    gradients, moments and every product of the update are computed in it, without loss scaling:
    changes below half a spacing of the value are lost, and small second moments become 0. That is
    how the released codes ran, and what their learning rates belong to. The parameters themselves
    stay float32 (their values fit half precision), so that the forward pass does not change.

    The state of a tensor is `exp_avg` and `exp_avg_sq`, in the precision they are computed in.

    Args:
        params: tensors, or groups of them with values of their own, `half` among them.
        lr: learning rate.
        betas: β₁ and β₂.
        eps: ε.
        weight_decay: decay.
        max_norm: largest norm of a single tensor's gradient.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        max_norm: float = 1.0,
    ) -> None:
        defaults = {
            **{"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay},
            **{"max_norm": max_norm, "half": False},
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add tensors; with `half`, round their values."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for parameter in group["params"]:
            parameter.copy_(parameter.to(_precision(parameter, group)))

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Change every tensor that has a gradient; gradients stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        dtype = _precision(parameter, group)
        state = self.state[parameter]
        if not state:
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = torch.zeros_like(parameter, dtype=dtype)
        beta1, beta2 = group["betas"]
        grad = _clipped(parameter.grad.to(dtype), group["max_norm"])
        # The CPU's `add_` would round `alpha` to half precision, which a GPU's does not.
        mean = state["exp_avg"].mul_(beta1).addcmul_(grad, grad.new_ones(()), value=1 - beta1)
        square = state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        value = parameter.to(dtype)
        change = mean / (square.sqrt() + group["eps"])
        # Each product by itself, not fused into the sum: in half precision its rounding counts.
        change += group["weight_decay"] * value
        parameter.copy_(value - group["lr"] * change)


def _precision(parameter: Tensor, group: dict[str, Any]) -> torch.dtype:
    return torch.float16 if group["half"] else parameter.dtype


def _clipped(grad: Tensor, max_norm: float) -> Tensor:
    """`grad` scaled to a norm of at most `max_norm`, without a wait for the device."""
    return grad * (max_norm / (grad.norm() + _NORM_EPS)).clamp(max=1.0)


def half_precision_names(model: nn.Module) -> set[str]:
    """Names of the parameters that the released codes keep in half precision.

    Those of linear maps, attentions, convolutions and projections, biases included. LayerNorms,
    embeddings, tables of positions (by their name), the temperature and single learned vectors stay
    exact (`convert_weights` of OpenAI's CLIP; CLIP4Clip trains 64,001 values that are not halved).
    """
    found = set()
    for prefix, module in model.named_modules():
        if isinstance(module, nn.LayerNorm | nn.Embedding):
            continue
        for name, parameter in module.named_parameters(prefix, recurse=False):
            if name.endswith("bias") or (parameter.dim() >= 2 and "position" not in name):
                found.add(name)
    return found
