"""BertAdam against a loop over single numbers, in half precision, and interrupted."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

from discovla.methods.parts import LayerNorm, Linear, Vectors
from discovla.training.bertadam import BertAdam, half_precision_names
from discovla.training.checkpoint import read_adapter
from tests.models import tiny
from tests.training.fake import FakeBatches, trainer

BETAS, EPS = (0.9, 0.98), 1e-6
PUBLISHED = {
    **{"method": "full", "optimiser": "bertadam", "cosine": "from_start", "decay": "weights"},
    **{"beta2": 0.98, "lr": 1e-3},
}


def optimiser(parameter: nn.Parameter, **changes: Any) -> BertAdam:
    values = {"lr": 0.1, "betas": BETAS, "eps": EPS, "weight_decay": 0.0, **changes}
    group = {"params": [parameter], "half": values.pop("half", False)}
    return BertAdam([group], **values)


def fits_half(tensor: Tensor) -> bool:
    return torch.equal(tensor, tensor.half().to(tensor.dtype))


@given(
    start=st.lists(st.floats(-3, 3), min_size=1, max_size=4),
    seed=st.integers(0, 99),
    size=st.floats(0.01, 5),
    lr=st.floats(0, 0.5),
    decay=st.floats(0, 0.5),
    max_norm=st.floats(0.1, 3),
)
def test_it_does_what_a_loop_over_numbers_does(
    start: list[float], seed: int, size: float, lr: float, decay: float, max_norm: float
) -> None:
    values, means, squares = list(start), [0.0] * len(start), [0.0] * len(start)
    parameter = nn.Parameter(torch.tensor(start, dtype=torch.float64))
    tested = optimiser(parameter, lr=lr, weight_decay=decay, max_norm=max_norm)
    generator = np.random.default_rng(seed)
    for _ in range(4):
        grad = (generator.normal(size=len(start)) * size).tolist()
        parameter.grad = torch.tensor(grad, dtype=torch.float64)
        tested.step()
        assert parameter.grad.tolist() == grad
        norm = math.sqrt(sum(g * g for g in grad))
        for i, g in enumerate(grad):
            if norm > max_norm:
                g *= max_norm / norm
            means[i] = 0.9 * means[i] + 0.1 * g
            squares[i] = 0.98 * squares[i] + 0.02 * g * g
            change = means[i] / (math.sqrt(squares[i]) + EPS) + decay * values[i]
            values[i] -= lr * change
    # Where the norm passes the limit, the clipping adds 1e-6 to it, as torch's own does.
    assert parameter.tolist() == pytest.approx(values, rel=1e-4, abs=1e-4)


def test_first_step_has_no_bias_correction() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = torch.tensor([0.5])
    optimiser(parameter).step()
    assert parameter.item() == pytest.approx(-0.1 * 0.1 / math.sqrt(0.02), rel=1e-4)


def test_a_tensor_without_gradient_stays() -> None:
    parameter = nn.Parameter(torch.ones(2))
    tested = optimiser(parameter, weight_decay=0.5)
    tested.step()
    assert parameter.tolist() == [1, 1]
    assert not tested.state


def test_a_closure_gives_its_loss() -> None:
    parameter = nn.Parameter(torch.ones(1))
    tested = optimiser(parameter)

    def closure() -> Tensor:
        loss = (parameter**2).sum()
        loss.backward()
        return loss

    assert tested.step(closure) == 1
    assert parameter.item() < 1


# Half precision


def halved(value: Any) -> Any:
    """A number as half precision holds it, in float32 for the next operation."""
    return np.float32(np.float16(value))


@given(seed=st.integers(0, 999), size=st.sampled_from([1e-5, 1e-4, 1e-2, 0.1]))
def test_half_precision_rounds_after_every_operation(seed: int, size: float) -> None:
    """Scalars and the inside of a sum stay exact, as in the kernels of a GPU; no clipping here."""
    generator = np.random.default_rng(seed)
    start = (generator.normal(size=3) * 0.05).astype(np.float32)
    parameter = nn.Parameter(torch.from_numpy(start.copy()))
    tested = optimiser(parameter, lr=1e-3, weight_decay=0.2, half=True)
    value, mean, square = halved(start), np.zeros(3, np.float32), np.zeros(3, np.float32)
    assert parameter.tolist() == value.tolist()
    for _ in range(3):
        grad = (generator.normal(size=3) * size).astype(np.float32)
        parameter.grad = torch.from_numpy(grad)
        tested.step()
        g = halved(grad)
        mean = halved(halved(np.float32(0.9) * mean) + np.float32(0.1) * g)
        square = halved(halved(np.float32(0.98) * square) + np.float32(0.02) * g * g)
        change = halved(mean / halved(halved(np.sqrt(square)) + np.float32(EPS)))
        change = halved(change + halved(np.float32(0.2) * value))
        value = halved(value - halved(np.float32(1e-3) * change))
    state = tested.state[parameter]
    assert parameter.tolist() == value.tolist()
    assert state["exp_avg"].tolist() == mean.tolist()
    assert state["exp_avg_sq"].tolist() == square.tolist()


def test_half_precision_keeps_values_and_moments_in_it() -> None:
    parameter = nn.Parameter(torch.full((2,), 1 / 3))
    tested = optimiser(parameter, half=True)
    assert parameter.dtype == torch.float32
    assert fits_half(parameter.detach())
    parameter.grad = torch.full((2,), 1 / 7)
    tested.step()
    assert fits_half(parameter.detach())
    assert parameter.dtype == torch.float32
    assert {t.dtype for t in tested.state[parameter].values()} == {torch.float16}


def test_half_precision_loses_changes_below_half_a_spacing() -> None:
    exact, rounded = (
        nn.Parameter(torch.full((1,), 0.03125)),
        nn.Parameter(torch.full((1,), 0.03125)),
    )
    for parameter, half in ((exact, False), (rounded, True)):
        tested = optimiser(parameter, lr=1e-6, half=half)
        parameter.grad = torch.ones(1)
        tested.step()
    assert exact.item() < 0.03125
    assert rounded.item() == 0.03125


def test_half_precision_makes_small_gradients_plain_momentum() -> None:
    """0.02 g² of a small gradient is stored as 0: the update is m / ε, a million times larger."""
    exact, rounded = (nn.Parameter(torch.zeros(1)) for _ in range(2))
    for parameter, half in ((exact, False), (rounded, True)):
        tested = optimiser(parameter, lr=1e-3, half=half)
        parameter.grad = torch.full((1,), 5e-5)
        tested.step()
    assert exact.item() == pytest.approx(-1e-3 * 5e-6 / (math.sqrt(0.02) * 5e-5 + EPS), rel=1e-3)
    assert rounded.item() == pytest.approx(-1e-3 * 5e-6 / EPS, rel=0.05)


@pytest.mark.parametrize("method", ["full", "discovla"])
def test_matrices_and_their_biases_are_halved(method: str) -> None:
    model = tiny.model(method)
    halves = half_precision_names(model)
    for name, parameter in model.named_parameters():
        exact = any(part in name for part in (".ln_", "positional", "token_embedding"))
        exact = exact or name.endswith(("logit_scale", "class_embedding"))
        assert (name in halves) == (not exact), name
        assert name not in halves or parameter.dim() >= 1


def test_tables_and_single_vectors_of_a_method_stay_exact() -> None:
    parts = {
        **{"map": Linear(4, 4), "ln": LayerNorm(4), "words": nn.Embedding(3, 4)},
        **{"position": Vectors(5, 4), "token": Vectors(4), "prompts": Vectors(2, 4)},
    }
    halves = half_precision_names(nn.ModuleDict(parts))
    assert halves == {"map.weight", "map.bias", "prompts.weight"}


# Whole trainings


@pytest.mark.parametrize("storage", ["fp32", "fp16"])
def test_killed_anywhere_it_ends_bit_identical(tmp_path: Path, storage: str) -> None:
    values = {**PUBLISHED, "storage": storage, "save_every": 1}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    trainer(whole, **values).fit()
    for steps in (1, 3):  # killed twice: after the first step, and after three more
        batches = FakeBatches(4)
        batches.interrupt_at = steps
        with pytest.raises(RuntimeError, match="plug"):
            trainer(broken, batches, **values).fit()
        check_state(load_file(broken / "state" / "state.safetensors"), storage)
    trainer(broken, **values).fit()
    first, second = (read_adapter(f / "adapter.safetensors")[0] for f in (whole, broken))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[n], second[n]) for n in first)
    halves = half_precision_names(tiny.model("full"))
    assert all(fits_half(first[n]) for n in first if n in halves) == (storage == "fp16")
    assert any(not fits_half(first[n]) for n in first if n not in halves)


def check_state(state: dict[str, Tensor], storage: str) -> None:
    """What is exact is saved as it is, what is halved in half precision."""
    halves = half_precision_names(tiny.model("full")) if storage == "fp16" else set()
    assert state.pop("curve").dtype == torch.float64
    assert {key.partition("/")[0] for key in state} == {"model", "exp_avg", "exp_avg_sq"}
    for key, tensor in state.items():
        kind, _, name = key.partition("/")
        half = kind != "model" and name in halves
        assert tensor.dtype == (torch.float16 if half else torch.float32), key
