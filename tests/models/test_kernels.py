"""Every kernel against its definition, values and gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from open_clip.transformer import QuickGELU
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from discovla.models import kernels
from tests.methods import every
from tests.models import tiny

Kernel = Callable[..., Tensor]


def values_and_gradients(kernel: Kernel, *inputs: Tensor) -> list[Tensor]:
    """The result, and the gradient of a weighted sum of it by every input that wants one."""
    leaves = [t.detach().clone().requires_grad_(t.requires_grad) for t in inputs]
    found = kernel(*leaves)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(0))
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    return [found, *torch.autograd.grad((found * weights.to(found.dtype)).sum(), wanted)]


def assert_same(found: list[Tensor], wanted: list[Tensor], limit: float = 1e-5) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        scale = max(other.abs().max().item(), 0.1)
        assert (one - other).abs().max().item() <= limit * scale


def drawn(*shape: int, seed: int = 0, trained: bool = False) -> Tensor:
    made = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return made.requires_grad_(trained)


@pytest.mark.parametrize("trained", [(True, False, False), (False, True, False), (True,) * 3])
@pytest.mark.parametrize("with_bias", [True, False])
def test_onednn_multiplies_as_torch_does(
    trained: tuple[bool, bool, bool], with_bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "prefers_onednn", lambda: True)
    monkeypatch.setattr(kernels, "_MIN_FLOPS", 0)
    x = drawn(3, 5, 12, trained=trained[0])
    weight, bias = drawn(7, 12, seed=1, trained=trained[1]), drawn(7, seed=2, trained=trained[2])
    inputs = (x, weight, bias) if with_bias else (x, weight)
    assert_same(
        values_and_gradients(kernels.linear, *inputs), values_and_gradients(F.linear, *inputs)
    )
    strided = drawn(12, 3, 5).permute(1, 2, 0)
    assert not strided.is_contiguous()
    assert_same([kernels.linear(strided, weight)], [F.linear(strided, weight)])


def test_only_plain_float32_on_a_cpu_takes_another_product(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Tensor] = []

    def noted(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        taken.append(x)
        return F.linear(x, weight, bias)

    monkeypatch.setattr(kernels, "prefers_onednn", lambda: True)
    monkeypatch.setattr(kernels, "_product", noted)
    large, weight = drawn(64, 256), drawn(256, 256)
    kernels.linear(drawn(4, 256), weight)  # too small
    kernels.linear(large.bfloat16(), weight.bfloat16())
    kernels.linear(large.to("meta"), weight.to("meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert kernels.linear(large, weight).dtype == torch.bfloat16
    assert not taken
    kernels.linear(large, weight)
    assert len(taken) == 1
    monkeypatch.setattr(kernels, "prefers_onednn", lambda: False)
    kernels.linear(large, weight)
    assert len(taken) == 1


def test_quick_gelu_is_its_definition_and_keeps_one_tensor() -> None:
    x = drawn(4, 9, trained=True) * 3
    definition = QuickGELU()
    assert_same(
        values_and_gradients(kernels.quick_gelu, x), values_and_gradients(definition, x), 1e-6
    )

    def kept(function: Kernel) -> int:
        sizes: list[int] = []
        with saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            function(x)
        return sum(sizes)

    assert kept(kernels.quick_gelu) == x.numel() < kept(definition)
    assert_same([kernels.activation(nn.GELU(), x)], [F.gelu(x)], 0)
    assert_same([kernels.activation(definition, x)], [definition(x)], 1e-6)


def naive_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool) -> Tensor:
    """By its definition in float64."""
    q, k, v = (t.double() for t in (q, k, v))
    logits = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    if bias is not None:
        logits = logits + bias
    if causal:
        for t in range(q.shape[-2]):
            logits[..., t, t + 1 :] = float("-inf")
    return logits.softmax(-1) @ v


@given(
    width=st.sampled_from([8, 16, 40, 64]),
    queries=st.integers(1, 9),
    keys=st.integers(1, 9),
    kind=st.sampled_from(["plain", "causal", "bias"]),
    half=st.booleans(),
)
def test_attention_of_every_shape_and_type(
    width: int, queries: int, keys: int, kind: str, half: bool
) -> None:
    causal = kind == "causal"
    keys = queries if causal else keys
    dtype = torch.bfloat16 if half else torch.float32
    q, k, v = (
        drawn(2, 3, n, width, seed=s).to(dtype).requires_grad_()
        for s, n in enumerate((queries, keys, keys))
    )
    bias = drawn(2, 1, 1, keys, seed=9).to(dtype) if kind == "bias" else None

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return kernels.attention(q, k, v, bias, causal)

    def naive(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return naive_attention(q, k, v, bias, causal).to(dtype)

    limit = 6e-2 if half else 1e-5
    found, wanted = (values_and_gradients(f, q, k, v) for f in (ours, naive))
    assert_same(found, wanted, limit)


def test_norms_leave_in_the_type_of_the_maps_behind_them() -> None:
    norm, x = nn.LayerNorm(8), drawn(3, 8)
    assert kernels.normed(norm, x).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        found = kernels.normed(norm, x)
    assert torch.equal(found, norm(x).bfloat16())


@pytest.mark.parametrize("name", [n for n in every.VARIANTS if n != "zero_shot"])
def test_blocks_computed_again_give_the_same_bits(name: str) -> None:
    """Activation checkpointing: every method, whatever its hooks do to the state."""
    grads: list[dict[str, Tensor]] = []
    for recompute in (False, True):
        model = every.model(name)
        model.recompute = recompute
        loss = model.loss(tiny.batch(frames=every.FRAMES))["loss"]
        loss.backward()
        found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        grads.append({"loss": loss.detach(), **found})
    assert grads[0].keys() == grads[1].keys()
    for tensor, again in grads[0].items():
        assert torch.equal(grads[1][tensor], again), tensor


@pytest.mark.parametrize("name", ["discovla", "full", "mv_adapter", "dgl"])
def test_frozen_matrices_in_bfloat16_give_the_bits_of_autocast(name: str) -> None:
    found = []
    for halved in (False, True):
        model = every.model(name)
        if halved:
            model.halve_frozen()
        with torch.autocast("cpu", torch.bfloat16):
            out = model(tiny.batch(frames=every.FRAMES))
        loss = model.loss_of(out, tiny.batch(frames=every.FRAMES))["loss"]
        loss.backward()
        found.append([loss, *(p.grad for p in model.parameters() if p.grad is not None)])
        frozen = model.clip.visual.transformer.resblocks[0].mlp.c_fc.weight
        wanted = torch.bfloat16 if halved and name != "full" else torch.float32
        assert frozen.dtype == wanted
        assert model.clip.ln_final.weight.dtype == torch.float32
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
