"""Free vectors, plain layers and their starts against definitions; tokens in and out."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn

from discovla.methods.parts import Block, Bottleneck, LayerNorm, Linear, Vectors, drop, insert
from discovla.models.hooks import TEXT, VISION, State
from tests.methods import naive
from tests.models import tiny

WIDTH, HEADS = 12, 3


def start(module: nn.Module, seed: int = 0) -> None:
    """Fill a module as `Method.initialise` does."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            for name, tensor in part.named_parameters(recurse=False):
                part.init_tensor(name, tensor, generator)  # type: ignore[operator]


def test_vectors_are_normal_or_zero() -> None:
    vectors, zeros = Vectors(3, 4, 500), Vectors(2, 5, std=0.0)
    start(vectors)
    start(zeros)
    assert vectors.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert vectors.weight.mean().abs() < 1e-3
    assert not zeros.weight.any()
    assert torch.equal(vectors[1], vectors.weight[1])
    assert torch.equal(vectors[:], vectors.weight)


@pytest.mark.parametrize(
    ("name", "weight", "bias"),
    [
        ("default", 1 / math.sqrt(300), 1 / math.sqrt(300)),
        ("xavier", math.sqrt(6 / 500), 0.0),
        ("attention", 1 / math.sqrt(300), 0.0),
        ("zero", 0.0, 0.0),
    ],
)
def test_linear_maps_start_uniform_within_a_bound(name: str, weight: float, bias: float) -> None:
    linear = Linear(300, 200, start=name)
    start(linear)
    for tensor, bound in ((linear.weight.detach(), weight), (linear.bias.detach(), bias)):
        assert float(tensor.abs().max()) <= bound
        assert float(tensor.abs().max()) >= 0.95 * bound
        assert float(tensor.std()) == pytest.approx(bound / math.sqrt(3), rel=0.1)


@torch.no_grad()
def test_bounds_are_those_of_pytorch() -> None:
    torch.manual_seed(0)
    plain, attention = nn.Linear(64, 64), nn.MultiheadAttention(64, 2)
    for theirs, name in (
        (plain.weight, "default"),
        (plain.bias, "default"),
        (attention.in_proj_weight, "xavier"),
        (attention.out_proj.weight, "attention"),
    ):
        ours = Linear(64, len(theirs), start=name)
        start(ours)
        tensor = ours.weight if theirs.dim() == 2 else ours.bias
        assert float(tensor.abs().max()) == pytest.approx(float(theirs.abs().max()), rel=0.05)
    assert not attention.in_proj_bias.any()
    assert not attention.out_proj.bias.any()


def test_layer_norm_starts_as_one() -> None:
    norm = LayerNorm(5)
    nn.init.normal_(norm.weight)
    start(norm)
    assert torch.equal(norm.weight, torch.ones(5))
    assert torch.equal(norm.bias, torch.zeros(5))


def block() -> Block:
    built = Block(WIDTH, HEADS)
    start(built)
    tiny.shake(built)
    return built


@torch.no_grad()
def test_block_follows_the_definition() -> None:
    own, x = block(), torch.randn(2, 4, WIDTH, generator=torch.Generator().manual_seed(1))
    hidden = torch.tensor([[0, 0, 1, 0], [0, 1, 1, 1]]).bool()
    open_to = [[0, 1, 3], [0]]
    plain, causal, masked = own(x), own(x, causal=True), own(x, hidden)
    for n in range(2):
        for found, sees in (
            (plain, naive.everything(4)),
            (causal, naive.up_to),
            (masked, lambda t, n=n: open_to[n]),
        ):
            expected = naive.run_trained_block(own, x[n], sees)
            torch.testing.assert_close(found[n], expected, **naive.CLOSE)


@torch.no_grad()
def test_block_is_a_block_of_clip() -> None:
    own = block()
    theirs = ResidualAttentionBlock(WIDTH, HEADS, act_layer=QuickGELU)
    names = {"qkv.": "attn.in_proj_", "out.": "attn.out_proj.", "fc.": "mlp.c_fc."}
    names["proj."] = "mlp.c_proj."
    state = {}
    for name, tensor in own.state_dict().items():
        part, _, leaf = name.rpartition(".")
        state[names.get(f"{part}.", f"{part}.") + leaf] = tensor
    theirs.load_state_dict(state)
    x = torch.randn(5, 2, WIDTH)
    expected = theirs(x) if theirs.attn.batch_first else theirs(x.transpose(0, 1)).transpose(0, 1)
    torch.testing.assert_close(own(x), expected, **naive.CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("name", "function"), [("quick_gelu", naive.quick), ("gelu", F.gelu)])
def test_bottleneck_follows_the_definition(
    bias: bool, name: str, function: Callable[[Tensor], Tensor]
) -> None:
    part = Bottleneck(WIDTH, 3, bias, name)
    start(part)
    c = torch.randn(2, 4, WIDTH, generator=torch.Generator().manual_seed(2))
    assert not part(c).any()
    tiny.shake(part)
    for token, found in zip(c.flatten(0, 1), part(c).flatten(0, 1), strict=True):
        hidden = part.down_weight @ token + (part.down_bias if bias else 0)
        expected = part.up_weight @ function(hidden) + (part.up_bias if bias else 0)
        torch.testing.assert_close(found, expected, **naive.CLOSE)
    assert sum(p.numel() for p in part.parameters()) == 6 * WIDTH + (WIDTH + 3) * bias


@torch.no_grad()
def test_bottleneck_starts_narrow() -> None:
    part = Bottleneck(200, 100)
    start(part)
    assert float(part.down_weight.abs().max()) == pytest.approx(math.sqrt(6 / 300), rel=0.01)
    assert 0 < float(part.down_bias.abs().max()) < 1e-5


numbers = st.integers(1, 3)


@given(numbers, numbers, st.integers(0, 3), numbers, st.booleans(), st.booleans())
def test_inserted_tokens_stand_behind_the_lead_and_come_out_again(
    samples: int, lead: int, others: int, count: int, text: bool, shared: bool
) -> None:
    x = torch.randn(samples, lead + others, 4)
    eot = torch.full((samples,), lead + others - 1) if text else None
    mask = torch.rand(samples, lead + others) < 0.5 if text else None
    tower = TEXT if text else VISION
    state = State(tower, x, samples, 1, n_lead=lead, eot=eot, key_mask=mask)
    tokens = torch.randn(count, 4) if shared else torch.randn(samples, count, 4)
    insert(state, tokens)
    for n in range(samples):
        own = tokens if shared else tokens[n]
        expected = [*x[n, :lead], *own, *x[n, lead:]]
        assert torch.equal(state.x[n], torch.stack(expected))
        if text:
            assert mask is not None
            assert state.key_mask is not None
            places = [*mask[n, :lead].tolist(), *[True] * count, *mask[n, lead:].tolist()]
            assert state.key_mask[n].tolist() == places
            assert state.eot is not None
            if others:
                assert torch.equal(state.x[n, state.eot[n]], x[n, -1])
    drop(state, count)
    assert torch.equal(state.x, x)
    for found, before in ((state.eot, eot), (state.key_mask, mask)):
        assert (found is None) if before is None else torch.equal(found, before)
