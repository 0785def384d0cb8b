"""Optimiser, schedule and clipping against the released code's trace and against definitions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from discovla.errors import UserError
from discovla.training.bertadam import BertAdam, half_precision_names
from discovla.training.checkpoint import trained_parameters
from discovla.training.optim import (
    Schedule,
    build_optimiser,
    check_optimisation,
    clip_gradients,
    optimiser_of,
    set_learning_rate,
)
from tests.models import tiny


def test_twenty_steps_follow_the_released_code(shared: Callable[[str], Path]) -> None:
    trace = json.loads(shared("golden/optim_public.json").read_text())
    tensors = load_file(shared("golden/optim_public.safetensors"))
    names = sorted(n.split("/")[1] for n in tensors if n.startswith("step00/"))
    parameters = {n: nn.Parameter(tensors[f"step00/{n}"].clone()) for n in names}
    settings = tiny.settings(
        lr=trace["base_lr"],
        weight_decay=trace["weight_decay"],
        adam_eps=trace["eps"],
        beta1=trace["betas"][0],
        beta2=trace["betas"][1],
        clip_norm=trace["clip"],
        warmup=trace["warmup_steps"] / trace["steps"],
    )
    schedule = Schedule(trace["steps"], settings.warmup * trace["steps"])
    optimiser = build_optimiser(parameters, settings)
    for t in range(1, trace["steps"] + 1):
        for name, parameter in parameters.items():
            parameter.grad = tensors[f"step{t:02d}/{name.replace('p', 'g')}"].clone()
        set_learning_rate(optimiser, schedule.factor(t - 1))
        norm = clip_gradients(parameters.values(), settings.clip_norm)
        optimiser.step()
        lr = optimiser.param_groups[0]["lr"]
        assert lr == pytest.approx(trace["lr_used"][t - 1], abs=1e-12)
        assert norm.item() == pytest.approx(trace["grad_norm_before_clip"][t - 1], rel=1e-5)
        for name, parameter in parameters.items():
            expected = tensors[f"step{t:02d}/{name}"]
            error = (parameter.detach() - expected).abs().max()
            assert error <= 1e-6 * max(1.0, expected.abs().max().item())


@given(total=st.integers(1, 400), warmup=st.floats(0, 1))
def test_schedule_rises_to_the_peak_and_falls_towards_zero(total: int, warmup: float) -> None:
    schedule = Schedule(total, warmup * total)
    factors = [schedule.factor(step) for step in range(total)]
    for step, factor in enumerate(factors):
        if step < warmup * total:
            assert factor == step / (warmup * total)
        else:
            done = (step - warmup * total) / (total - warmup * total)
            assert factor == pytest.approx((1 + math.cos(done * math.pi)) / 2)
    assert all(0 <= factor <= 1 for factor in factors)
    if warmup * total > 0:
        assert factors[0] == 0


def test_paper_schedule_peaks_after_703_of_7030_steps() -> None:
    schedule = Schedule(7030, 0.1 * 7030)
    assert schedule.factor(0) == 0
    assert schedule.factor(703) == 1
    assert schedule.factor(702) == pytest.approx(702 / 703)
    assert 0 < schedule.factor(7029) < 1e-6


@given(total=st.integers(1, 400), warmup=st.floats(0, 1))
def test_cosine_from_the_start_counts_the_warm_up(total: int, warmup: float) -> None:
    schedule = Schedule.of(total, tiny.settings(warmup=warmup, cosine="from_start"))
    for step in range(total):
        done = step / total
        if step < warmup * total:
            assert schedule.factor(step) == pytest.approx(done / warmup)
        else:
            assert schedule.factor(step) == pytest.approx((1 + math.cos(math.pi * done)) / 2)


def test_cosine_from_the_start_jumps_after_the_warm_up() -> None:
    settings = tiny.settings(warmup=0.1, cosine="from_start")
    factors = [Schedule.of(100, settings).factor(step) for step in range(100)]
    assert factors[0] == 0
    assert factors[9] == pytest.approx(0.9)
    assert factors[10] == pytest.approx(0.97553, abs=1e-5)
    restarted = Schedule.of(100, tiny.settings(warmup=0.1))
    assert [restarted.factor(step) for step in (9, 10)] == pytest.approx([0.9, 1])


def test_groups_follow_factors_and_all_tensors_decay() -> None:
    parameters = {n: nn.Parameter(torch.ones(2)) for n in ("a", "b", "c")}
    settings = tiny.settings(lr=0.1, weight_decay=0.5)
    optimiser = build_optimiser(parameters, settings, {"a": 1.0, "b": 0.01})
    set_learning_rate(optimiser, 0.5)
    by_tensor = {id(p): g["lr"] for g in optimiser.param_groups for p in g["params"]}
    rates = {n: by_tensor[id(p)] for n, p in parameters.items()}
    assert rates == pytest.approx({"a": 0.05, "b": 0.0005, "c": 0.05})
    for parameter in parameters.values():
        parameter.grad = torch.zeros(2)
    optimiser.step()
    for name, parameter in parameters.items():
        assert parameter.tolist() == pytest.approx([1 - rates[name] * 0.5] * 2)


@pytest.mark.parametrize("optimiser", ["adamw", "bertadam"])
@pytest.mark.parametrize("decay", ["all", "weights"])
def test_decay_acts_where_the_method_says(optimiser: str, decay: str) -> None:
    values = {"lr": 0.1, "weight_decay": 0.5, "optimiser": optimiser, "decay": decay}
    model = tiny.model("full", **values)
    parameters = trained_parameters(model)
    before = {n: p.detach().clone() for n, p in parameters.items()}
    built = optimiser_of(model, parameters, tiny.settings("full", **values))
    assert type(built) is {"adamw": torch.optim.AdamW, "bertadam": BertAdam}[optimiser]
    set_learning_rate(built, 1.0)
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    built.step()
    for name, parameter in parameters.items():
        kept = 0.95 if decay == "all" or not name.endswith("bias") else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * kept)


def test_halved_matrices_train_beside_exact_norms() -> None:
    values = {"optimiser": "bertadam", "storage": "fp16"}
    model = tiny.model("full", **values)
    parameters = trained_parameters(model)
    built = optimiser_of(model, parameters, tiny.settings("full", **values))
    halves = half_precision_names(model)
    by_tensor = {id(p): g["half"] for g in built.param_groups for p in g["params"]}
    assert {n: by_tensor[id(p)] for n, p in parameters.items()} == {
        n: n in halves for n in parameters
    }
    assert 0 < sum(by_tensor.values()) < len(parameters)


def test_half_precision_needs_bertadam() -> None:
    check_optimisation(tiny.settings(storage="fp16", optimiser="bertadam"))
    with pytest.raises(UserError, match="storage is fp16 with optimiser adamw"):
        check_optimisation(tiny.settings(storage="fp16"))


def test_clipping_is_global() -> None:
    first, second = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    first.grad, second.grad = torch.tensor([3.0]), torch.tensor([4.0])
    assert clip_gradients([first, second], 2.5).item() == pytest.approx(5)
    assert first.grad.item() == pytest.approx(1.5)
    assert second.grad.item() == pytest.approx(2.0)


@pytest.mark.parametrize("wrong", [{"beta1": 1.0}, {"beta2": 1.5}, {"clip_norm": 0}])
def test_useless_values_are_refused(wrong: dict[str, float]) -> None:
    check_optimisation(tiny.settings())
    with pytest.raises(UserError, match=next(iter(wrong))):
        check_optimisation(tiny.settings(**wrong))
