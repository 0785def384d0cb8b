"""AdamW, its schedule and the clipping of gradients, as the released code arranges them (§4.1)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from discovla.errors import UserError
from discovla.settings import RunSettings


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up from 0, then a cosine that reaches 0 after the last step.

    Step t counts from 0, so the first step of a warmed-up training has learning rate 0 (released
    code); `warmup_steps` may be a fraction.
    """

    total_steps: int
    warmup_steps: float

    def factor(self, step: int) -> float:
        """Factor on the peak learning rate at a step from 0 to total_steps - 1."""
        if step < self.warmup_steps:
            return step / self.warmup_steps
        progress = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * progress))


def build_optimiser(
    parameters: Mapping[str, nn.Parameter],
    settings: RunSettings,
    factors: Mapping[str, float] | None = None,
) -> torch.optim.AdamW:
    """AdamW over all of `parameters`, with weight decay on every one of them, biases included.

    Args:
        parameters: trained tensors by name.
        settings: of the run: lr, weight_decay, beta1, beta2, adam_eps.
        factors: factor on the learning rate by name, 1 where absent. Tensors of equal factor make
            one group, whose `peak` is what `set_learning_rate` scales.
    """
    by_factor: dict[float, list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        by_factor.setdefault((factors or {}).get(name, 1.0), []).append(parameter)
    groups = [
        {"params": tensors, "lr": 0.0, "peak": settings.lr * factor}
        for factor, tensors in by_factor.items()
    ]
    return torch.optim.AdamW(
        groups,
        betas=(settings.beta1, settings.beta2),
        eps=settings.adam_eps,
        weight_decay=settings.weight_decay,
    )


def set_learning_rate(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Set every group to `factor` times its peak."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * factor


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """Scale all gradients so that their joint norm is at most `limit`; return the norm before.

    The norm stays on its device, so that no step has to wait for it.
    """
    return nn.utils.clip_grad_norm_(parameters, limit)


def check_optimisation(settings: RunSettings) -> None:
    """Refuse values with which AdamW is undefined or nothing can be learnt; raise `UserError`."""
    for name in ("beta1", "beta2"):
        if not 0 <= (value := getattr(settings, name)) < 1:
            raise UserError(f"setting {name} is {value:g}; allowed: 0 up to, but not, 1")
    if settings.clip_norm == 0:
        raise UserError(
            "setting clip_norm is 0: every gradient would become 0; for no clipping give a large "
            "number, such as 1.0e9"
        )
