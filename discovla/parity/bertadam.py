"""BertAdam alone against ArrowLuo/CLIP4Clip, and the replay of recorded optimiser steps."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from torch import Tensor, nn

from discovla.models.hooks import Batch
from discovla.models.retriever import Retriever
from discovla.parity.case import Case, errors, relative_error
from discovla.settings import RunSettings
from discovla.training.checkpoint import trained_parameters
from discovla.training.optim import Schedule, build_optimiser, optimiser_of, set_learning_rate
from discovla.training.trainer import improve

PUBLISHED = {"optimiser": "bertadam", "cosine": "from_start", "decay": "weights", "clip_norm": 1}
"""How CLIP4Clip and MV-Adapter optimise; their golden numbers are all of float32."""


def compare(case: Case, **changes: Any) -> dict[str, float]:
    """Errors of every tensor after every step by the recorded gradients, in order."""
    tensors = case.tensors("")
    first = "step00/"
    parameters = {
        n.removeprefix(first): nn.Parameter(t.clone())
        for n, t in tensors.items()
        if n.startswith(first)
    }
    settings = case.settings("full", {**_values(case), **changes})
    factors = {n: g["lr"] / settings.lr for g in case["groups"] for n in g["params"]}
    decaying = {n for g in case["groups"] if g["weight_decay"] > 0 for n in g["params"]}
    optimiser = build_optimiser(parameters, settings, factors, decaying.__contains__)
    schedule = Schedule.of(case["t_total"], settings)
    found = {}
    for step in range(case["steps"]):
        for name, parameter in parameters.items():
            parameter.grad = tensors[f"step{step + 1:02d}/{name.replace('p', 'g')}"].clone()
        set_learning_rate(optimiser, schedule.factor(step))
        optimiser.step()
        for name, parameter in parameters.items():
            key = f"step{step + 1:02d}/{name}"
            found[key] = relative_error(parameter.detach(), tensors[key])
    return found


def _values(case: Case) -> dict[str, Any]:
    return {
        **PUBLISHED,
        "lr": case["groups"][0]["lr"],
        "weight_decay": max(group["weight_decay"] for group in case["groups"]),
        "warmup": case["warmup"],
        "beta1": case["b1"],
        "beta2": case["b2"],
        "adam_eps": case["eps"],
    }


def replay(
    model: Retriever, batch: Batch, settings: RunSettings, total_steps: int
) -> Iterator[dict[str, Tensor]]:
    """Train on one batch by the trainer's own functions; trained tensors after each step."""
    parameters = trained_parameters(model)
    optimiser = optimiser_of(model, parameters, settings)
    schedule = Schedule.of(total_steps, settings)
    for step in range(total_steps):
        set_learning_rate(optimiser, schedule.factor(step))
        improve(model, parameters.values(), optimiser, batch, settings)
        yield model.trainable_state()


def trace_errors(
    wanted: Mapping[str, Tensor],
    start: Mapping[str, Tensor],
    states: Iterable[Mapping[str, Tensor]],
    noise: Collection[str] = (),
) -> dict[str, float]:
    """Errors of trained tensors after some steps.

    The error is the L2 norm of the difference over that of the tensor's whole movement, infinite
    for a tensor that is not trained or a step that is not made. Names in `noise` move by rounding
    noise alone: theirs is absolute, as in `case.errors`.

    Args:
        wanted: recorded tensors under `step{t}/{name}`, after t steps.
        start: trained tensors by name before the first step.
        states: the same after each step, as `replay` gives them.
        noise: names of `wanted`.
    """
    found = dict.fromkeys(wanted, float("inf"))
    steps = {key: int(key.partition("/")[0].removeprefix("step")) for key in wanted}
    for step, state in enumerate(islice(states, max(steps.values())), 1):
        for key in wanted:
            name = key.partition("/")[2]
            if steps[key] != step or name not in state:
                continue
            if key in noise:
                found.update(errors({key: wanted[key]}, {key: state[name]}, noise))
            else:
                found[key] = _movement_error(state[name], wanted[key], start[name])
    return found


def _movement_error(found: Tensor, reference: Tensor, start: Tensor) -> float:
    movement = float((reference - start).norm()) or 1.0
    return float((found - reference).norm()) / movement
