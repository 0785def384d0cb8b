"""Optimisers, their schedule and the clipping of gradients, as released codes arrange them (§4.1).

AdamW is DiscoVLA's; BertAdam, its cosine and its groups are those of CLIP4Clip and MV-Adapter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from discovla.errors import UserError
from discovla.models.retriever import Retriever
from discovla.settings import RunSettings
from discovla.training.bertadam import BertAdam, half_precision_names


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up from 0, then a cosine that reaches 0 after the last step.

    Step t counts from 0, so the first step of a warmed-up training has learning rate 0 (released
    codes); `warmup_steps` may be a fraction. With `cosine` = `from_start` the cosine's phase counts
    from step 0 too, so that the factor falls from 1 to .976 at the end of a 10 % warm-up.
    """

    total_steps: int
    warmup_steps: float
    cosine: str = "after_warmup"

    @classmethod
    def of(cls, total_steps: int, settings: RunSettings) -> Schedule:
        """The schedule of a run: its settings warmup and cosine."""
        return cls(total_steps, settings.warmup * total_steps, settings.cosine)

    def factor(self, step: int) -> float:
        """Factor on the peak learning rate at a step from 0 to total_steps - 1."""
        if step < self.warmup_steps:
            return step / self.warmup_steps
        start = self.warmup_steps if self.cosine == "after_warmup" else 0.0
        progress = (step - start) / (self.total_steps - start)
        return 0.5 * (1 + math.cos(math.pi * progress))


def optimiser_of(
    retriever: Retriever, parameters: Mapping[str, nn.Parameter], settings: RunSettings
) -> torch.optim.Optimizer:
    """The optimiser of a run over the trained tensors of its model.

    Args:
        retriever: says which learning rate, decay and precision belong to a tensor. With `storage:
            fp16` the values of its trained matrices are rounded.
        parameters: its trained tensors by name.
        settings: of the run.
    """
    half = half_precision_names(retriever) if settings.storage == "fp16" else ()
    decays = retriever.method.decays
    return build_optimiser(parameters, settings, retriever.lr_factors, decays, half)


def build_optimiser(
    parameters: Mapping[str, nn.Parameter],
    settings: RunSettings,
    factors: Mapping[str, float] | None = None,
    decays: Callable[[str], bool] | None = None,
    half: Collection[str] = (),
) -> torch.optim.Optimizer:
    """AdamW or BertAdam over all of `parameters`; see `check_optimisation` for what is allowed.

    Args:
        parameters: trained tensors by name.
        settings: of the run: optimiser, lr, weight_decay, beta1, beta2, adam_eps.
        factors: factor on the learning rate by name, 1 where absent.
        decays: whether weight decay acts on a name; on every one by default, biases included.
        half: names that BertAdam keeps in half precision.

    Returns:
        An optimiser in which tensors of equal factor, decay and precision make one group, whose
        `peak` is what `set_learning_rate` scales; one fused kernel on a GPU where `dtype` is bf16.
    """
    grouped: dict[tuple[float, bool, bool], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        key = ((factors or {}).get(name, 1.0), decays is None or decays(name), name in half)
        grouped.setdefault(key, []).append(parameter)
    groups = [
        {
            **{"params": tensors, "lr": 0.0, "peak": settings.lr * factor, "half": halved},
            "weight_decay": settings.weight_decay if decaying else 0.0,
        }
        for (factor, decaying, halved), tensors in grouped.items()
    ]
    common: dict[str, Any] = {
        **{"lr": 0.0, "betas": (settings.beta1, settings.beta2), "eps": settings.adam_eps},
        "weight_decay": settings.weight_decay,
    }
    if settings.optimiser == "bertadam":
        return BertAdam(groups, **common)
    on_gpu = all(parameter.is_cuda for parameter in parameters.values())
    return torch.optim.AdamW(groups, fused=on_gpu and settings.dtype == "bf16", **common)


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
    """Refuse values with which no optimiser is defined or nothing is learnt; raise `UserError`."""
    for name in ("beta1", "beta2"):
        if not 0 <= (value := getattr(settings, name)) < 1:
            raise UserError(f"setting {name} is {value:g}; allowed: 0 up to, but not, 1")
    if settings.clip_norm == 0:
        raise UserError(
            "setting clip_norm is 0: every gradient would become 0; for no clipping give a large "
            "number, such as 1.0e9"
        )
    if settings.storage == "fp16" and settings.optimiser != "bertadam":
        raise UserError(
            f"setting storage is fp16 with optimiser {settings.optimiser}; only bertadam keeps "
            "matrices and moments in half precision: set optimiser to bertadam, or storage to fp32"
        )
