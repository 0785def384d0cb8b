"""The last block for the read-out tokens alone gives what it gives for all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from discovla.methods.adapter import Adapter
from discovla.methods.discovla import DiscoVLA
from discovla.methods.tempme import TempMe
from discovla.models import encoder, lead
from discovla.models.hooks import Method, State
from discovla.models.retriever import Retriever
from discovla.parity import discovla as golden
from discovla.parity.case import GRADIENT_LIMIT, OUTPUT_LIMIT, Case, errors
from tests.methods import every
from tests.models import tiny

PROFIT = {
    **{name: (name, {}) for name in ("zero_shot", "full", "lora", "discovla")},
    "adapter": ("adapter", {"bottleneck": 4}),
    "image": ("discovla", {"attention": "image"}),
    "average": ("discovla", {"attention": "average"}),
    "no fusion": ("discovla", {"vision_layers": 0, "text_layers": 0}),
}
"""Methods and settings of which only lead tokens are computed in the last block."""


def results(model: Retriever, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Features, loss terms, gradients."""
    out = model(batch)
    terms = model.loss_of(out, batch)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    grads: tuple[Tensor | None, ...] = ()
    if trained:
        grads = torch.autograd.grad(terms["loss"], list(trained.values()), allow_unused=True)
    reached = {n: g for n, g in zip(trained, grads, strict=True) if g is not None}
    features = {n: t for n, t in vars(out).items() if t is not None}
    return {**features, **{f"term {n}": t for n, t in terms.items()}, **reached}


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        scale = max(tensor.abs().max().item(), 1e-3)
        assert (found[name] - tensor).abs().max().item() <= 1e-5 * scale, name


@pytest.mark.parametrize("name", PROFIT)
def test_lead_tokens_alone_give_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method, changes = PROFIT[name]
    model, batch = tiny.model(method, **changes), tiny.batch(5)
    batch["video_mask"][2, 1] = False
    widths: list[int] = []
    for tower in (model.clip.visual, model.clip):
        hook = _note_tokens(widths)
        tower.transformer.resblocks[-1].ln_2.register_forward_hook(hook)
    found = results(model, batch)
    assert set(widths) == {1}
    monkeypatch.setattr(encoder, "lead_suffices", lambda method: False)
    wanted = results(model, batch)
    assert 1 not in widths[len(widths) // 2 :]
    assert_same(found, wanted)


def _note_tokens(widths: list[int]) -> Callable[[nn.Module, Any, Tensor], None]:
    return lambda module, inputs, y: widths.append(y.shape[1])


@pytest.mark.parametrize("name", sorted(every.VARIANTS))
def test_other_methods_keep_all_tokens(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """None that declares nothing is cut, and cutting changes none that is."""
    model = every.model(name)
    assert lead.lead_suffices(model.method) == (name in {*PROFIT, "tempme"})
    batch = tiny.batch(4, every.FRAMES)
    found = results(model, batch)
    monkeypatch.setattr(encoder, "lead_suffices", lambda method: False)
    assert_same(found, results(model, batch))


def test_attention_over_whole_samples_keeps_all_tokens() -> None:
    assert not lead.lead_suffices(tiny.model(attention="video").method)


@pytest.mark.parametrize("kind", [Adapter, DiscoVLA, Method])
def test_an_override_needs_all_tokens_unless_it_is_declared(kind: type[Method]) -> None:
    name = {"Adapter": "adapter", "DiscoVLA": "discovla"}.get(kind.__name__, "zero_shot")
    options = {"bottleneck": 4} if kind is Adapter else {}
    dims, settings = tiny.backbone().dims, tiny.settings(name, **options)

    class Curious(kind):  # type: ignore[misc, valid-type]
        def post_layer(self, i: int, state: State) -> None:
            super().post_layer(i, state)

    assert lead.lead_suffices(kind(dims, settings))
    assert not lead.lead_suffices(Curious(dims, settings))
    patched = kind(dims, settings)
    patched.mlp_out = lambda i, state, y: y  # type: ignore[method-assign]
    assert not lead.lead_suffices(patched)


def test_marked_hooks_are_hooks() -> None:
    """A hook that was renamed would silently cost its speed."""
    for kind, hook in ((Adapter, "mlp_out"), (DiscoVLA, "attend"), (TempMe, "mid_layer")):
        assert hook in lead.BEHIND_KEYS
        assert vars(kind)[hook].tokenwise


class WithBias(Method):
    """A bias on the logits, one per key."""

    def begin(self, state: State) -> None:
        count = state.x.shape[:2]
        state.key_bias = torch.linspace(-1, 1, count[0] * count[1]).view(count)


class WithSquareBias(Method):
    """A bias per query and key: it is made for all queries."""

    def begin(self, state: State) -> None:
        groups, tokens = state.x.shape[:2]
        state.key_bias = torch.linspace(-1, 1, groups * tokens**2).view(groups, tokens, tokens)


@pytest.mark.parametrize("kind", [WithBias, WithSquareBias])
@torch.no_grad()
def test_biases_of_the_attention(kind: type[Method], monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, batch = tiny.backbone(), tiny.batch()
    model = Retriever(backbone, kind(backbone.dims, tiny.settings("zero_shot")))
    found = model(batch)
    monkeypatch.setattr(encoder, "lead_suffices", lambda method: False)
    wanted = model(batch)
    assert not torch.equal(wanted.text, tiny.model("zero_shot")(batch).text)
    for name in ("text", "frames"):
        torch.testing.assert_close(getattr(found, name), getattr(wanted, name))


@pytest.mark.parametrize("name", ["public_a", "public_b"])
def test_golden_numbers_hold_without_the_recorder(shared: Callable[[str], Path], name: str) -> None:
    """`parity` looks at all tokens of every block; this is the path that trains."""
    case = Case.read(shared(f"golden/{name}.json"))
    backbone = case.backbone(
        {n.removeprefix("clip."): t for n, t in case.weights.items() if "TVPt" not in n}
    )
    model = Retriever(backbone, DiscoVLA(backbone.dims, golden._settings(case, {})))
    model.load_trainable_state(
        {golden._our_name(n): t for n, t in case.weights.items() if "TVPt" in n}
    )
    assert lead.lead_suffices(model.method)
    batch = {n.removeprefix("in/"): t for n, t in case.golden.items() if n.startswith("in/")}
    out = model(batch)
    found = {
        "out/text_video_feat": out.text,
        "out/frame_feat": out.frames,
        "out/text_frame_feat": out.frame_texts,
        **{f"out/{n}": t for n, t in model.loss_of(out, batch).items()},
        **golden._gradients(model, batch),
    }
    wanted = {n: t for n, t in case.wanted.items() if n in found}
    assert wanted.keys() == found.keys()
    for key, error in errors(wanted, found).items():
        assert error <= (OUTPUT_LIMIT if key.startswith("out/") else GRADIENT_LIMIT), key
