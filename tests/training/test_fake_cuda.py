"""A training step on a GPU that is made up: devices, types, shapes, and no needless wait."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from discovla.models.fused import fused_attention
from discovla.models.retriever import Retriever
from discovla.training import gradients
from discovla.training.device import reproducible, to_device
from discovla.training.optim import optimiser_of
from discovla.training.trainer import improve
from tests import fake_cuda as fake
from tests.methods import every
from tests.models import tiny

CPU = torch.device("cpu")
TRAINED = [name for name in every.VARIANTS if name not in ("zero_shot", "mv_adapter_output")]
#: All of a step that a GPU would do, as (variant, changes of its settings, micro-batch).
STEPS: dict[str, tuple[str, dict[str, Any], int | None]] = {
    **{name: (name, {"dtype": "bf16"}, None) for name in TRAINED},
    "discovla, fp32": ("discovla", {}, None),
    "discovla, micro-batches": ("discovla", {"dtype": "bf16"}, 2),
    "discovla, whole sample": ("discovla", {"dtype": "bf16", "attention": "video"}, None),
    "discovla, average": ("discovla", {"dtype": "bf16", "attention": "average"}, None),
    "full, BertAdam": (
        "full",
        {"optimiser": "bertadam", "storage": "fp16", "mask_same_video": True},
        None,
    ),
}


def model_of(name: str, **changes: Any) -> Retriever:
    if name == "discovla":
        changes = {"alpha": 0.3, "beta": 1.0, **changes}
    return every.model(name, shaken=False, **changes)


@pytest.mark.parametrize("case", STEPS)
def test_a_step_waits_for_no_number_of_the_device(case: str) -> None:
    """Forward pass, losses, clipping and optimiser; the loader's batch lies on the CPU."""
    name, changes, micro = STEPS[case]
    model = model_of(name, **changes)
    loaded = tiny.batch(frames=every.FRAMES)
    # torch chooses cuDNN's recurrent kernel by asking the driver; without cuDNN it asks nothing.
    lstm = torch.backends.cudnn.flags(enabled=False) if name == "vop_fc" else nullcontext()
    with (
        fake.fake_cuda() as waits,
        fake.without_autograd(),
        # Masks are read on the CPU, where they are: `test_captions_are_cut_by_masks_on_the_cpu`.
        mock.patch.object(gradients, "to_device", fake.untrimmed),
        lstm,
    ):
        fake.placed(model, fake.CUDA)
        settings = model.method.settings
        if settings.dtype == "bf16":
            model.halve_frozen()
        parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        optimiser = optimiser_of(model, parameters, settings)
        for parameter in parameters.values():
            parameter.grad = torch.empty_like(parameter)
        with mock.patch.object(optimiser, "zero_grad"):
            terms, shared = improve(
                *(model, parameters.values(), optimiser, fake.like(loaded, CPU), settings),
                micro_batch=micro,
            )
        # One transfer brings all that the curve wants (`Trainer._read_numbers`).
        assert torch.stack([term.detach().float() for term in terms.values()]).is_cuda
    assert waits.found == []
    assert {term.dtype for term in terms.values()} == {torch.float32}
    assert shared["video_index"].is_cuda
    fused = optimiser.defaults.get("fused", False)
    assert fused == (settings.dtype == "bf16" and settings.optimiser == "adamw")


@pytest.mark.parametrize("name", TRAINED)
def test_gradients_are_computed_where_the_model_is(name: str) -> None:
    """The whole backward pass, micro-batches and recomputed blocks too, by torch's own engine."""
    model, loaded = model_of(name), tiny.batch(frames=every.FRAMES)
    fake.placed(model, fake.META)
    model.recompute = name in ("discovla", "tempme")
    micro = 2 if name == "discovla" else None
    with fake.on_meta():
        terms, _ = gradients.backward(model, loaded, "fp32", micro_batch=micro)
    assert {term.device for term in terms.values()} == {fake.META}
    grads = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert all(g is not None and g.device == fake.META for g in grads.values())


def test_captions_are_cut_by_masks_on_the_cpu() -> None:
    """Their length is known without a look at the device, and pinned memory goes in one piece."""
    loaded = tiny.batch(samples=6)
    longest = {
        name: max(int(row.sum()) for row in loaded[f"{name}_mask"].flatten(0, -2))
        for name in ("text", "frame_text")
    }
    moved = to_device(loaded, fake.META)
    sent: list[Tensor] = []
    for name, length in longest.items():
        for field in (f"{name}_ids", f"{name}_mask"):
            assert moved[field].shape[-1] == length
            assert moved[field].device == fake.META
    whole_to = Tensor.to

    def to(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        sent.append(tensor)
        return whole_to(tensor, *args, **kwargs)

    with mock.patch.object(Tensor, "to", to):
        to_device({n: t[1:3] for n, t in loaded.items()}, fake.META)
    assert len(sent) == len(loaded)
    assert all(tensor.is_contiguous() for tensor in sent)


def test_a_slip_would_be_seen() -> None:
    """What the tests above rest on."""
    with fake.fake_cuda() as waits:
        there = torch.ones(3, 4, device="cuda")
        reads = [
            lambda: float(there.sum()),
            lambda: there.nonzero(),
            lambda: there[there > 0],
            lambda: bool((there > 0).any()),
        ]
        assert [fake.raises_for(read) for read in reads] == [True] * len(reads)
        with pytest.raises(RuntimeError, match=r"cuda.*cpu"):
            there + torch.ones(3, 4)
        with torch.autocast("cuda", torch.bfloat16):
            assert (there @ there.T).dtype == torch.bfloat16
            assert there.softmax(-1).dtype == torch.float32
        assert waits.found == []
        there.cpu()
        torch.tensor([1.0, 2.0], device="cuda")
        there[[0, 2]]
        there[there > 0] = torch.ones(2, device="cuda")
        assert len(waits.found) == 4
        there.cpu().to("cuda", non_blocking=True)
        assert len(waits.found) == 5


def test_attention_adds_in_a_fixed_order_where_determinism_is_asked_for() -> None:
    """Strictly deterministic while a kernel is chosen and runs, in both passes, and never else."""
    seen: list[tuple[str, bool, bool]] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
        ) -> Any:
            name = func.overloadpacket.__name__
            strict = not torch.is_deterministic_algorithms_warn_only_enabled()
            enabled = torch.are_deterministic_algorithms_enabled()
            seen.append((name, enabled, enabled and strict))
            return func(*args, **(kwargs or {}))

    def attended() -> list[tuple[bool, bool]]:
        seen.clear()
        q, k, v = (torch.randn(2, 2, 5, 32, requires_grad=True) for _ in range(3))
        with Watch():
            fused_attention(q * 2, k, v, causal=True).square().sum().backward()
        assert not any(strict for name, _, strict in seen if name in ("mul", "pow", "sum"))
        found = [flags for name, *flags in seen if "attention" in name]
        assert len(found) == 2  # forward and backward
        return [tuple(flags) for flags in found]

    assert attended() == [(False, False)] * 2
    with reproducible(CPU):
        assert attended() == [(True, True)] * 2
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    # A backward pass behind the block, where nobody asks for it any more, changes no setting.
    with reproducible(CPU):
        q = torch.randn(1, 1, 3, 32, requires_grad=True)
        y = fused_attention(q, q, q)
    y.sum().backward()
    assert not torch.are_deterministic_algorithms_enabled()
