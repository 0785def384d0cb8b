"""One batch, one gradient: in whatever parts it is encoded, and by however many processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from discovla.errors import UserError
from discovla.methods.lora import LoRA
from discovla.models.hooks import State
from discovla.models.retriever import Retriever
from discovla.training.device import to_device
from discovla.training.gradients import backward, encode
from tests.methods import every
from tests.models import tiny
from tests.training import ranks

CASES: dict[str, dict[str, Any]] = {
    "discovla": {},
    "video attention": {"attention": "video"},
    "same video apart": {"mask_same_video": True, "detach_teacher": True},
    "temperature trained": {"method": "full"},
    "lora": {"method": "lora"},
}


JOBS = [(settings, micro, ranks.BATCH) for settings in CASES.values() for micro in (None, 4, 2)]
PAPER = [(CASES["discovla"], micro, 128) for micro in (128, 32, 8)]
"""Settings, micro-batch and batch; the paper's batch in the micro-batches of ever smaller GPUs."""


def naive(settings: dict[str, Any], size: int = ranks.BATCH) -> dict[str, Tensor]:
    """Loss of the whole batch in one graph, backward."""
    model = tiny.model(**settings)
    terms = model.loss(ranks.batch(size))
    terms["loss"].backward()
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {**{n: t.detach() for n, t in terms.items()}, **grads}


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """To 1e-5: the loss terms each, the gradients as one vector, and each against its size."""
    assert found.keys() == wanted.keys()
    terms = [n for n in wanted if n.startswith("loss")]
    grads = [n for n in wanted if n not in terms]
    for name in terms:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-5, atol=1e-7)
    one, other = (torch.cat([t[n].flatten() for n in grads]).double() for t in (found, wanted))
    assert (one - other).norm() <= 1e-5 * other.norm()
    largest = max(wanted[n].norm().item() for n in grads)
    for name in grads:  # a key's bias has no gradient but rounding
        distance = (found[name] - wanted[name]).norm().item()
        assert distance <= 1e-4 * wanted[name].norm().item() + 1e-6 * largest, name


@pytest.mark.parametrize("micro_batch", [None, 16, 5, 4, 2, 1])
@pytest.mark.parametrize("case", CASES)
def test_parts_of_a_batch_change_nothing(case: str, micro_batch: int | None) -> None:
    assert_equal(ranks.gradients(CASES[case], micro_batch), naive(CASES[case]))


@pytest.mark.parametrize(("settings", "micro_batch", "size"), PAPER)
def test_parts_of_the_papers_batch(settings: dict[str, Any], micro_batch: int, size: int) -> None:
    assert_equal(ranks.gradients(settings, micro_batch, size), naive(settings, size))


@pytest.fixture(scope="module")
def shared_out(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Results of 2 and 4 processes for every job."""
    folders = {}
    for size in (2, 4):
        folders[size] = tmp_path_factory.mktemp(f"world{size}")
        processes = ranks.start(size, ranks.save_gradients, folders[size], [*JOBS, *PAPER])
        for process in processes:
            process.join(180)
            assert process.exitcode == 0
    return folders


@pytest.mark.parametrize("size", [2, 4])
def test_number_of_processes_changes_nothing(shared_out: dict[int, Path], size: int) -> None:
    for number, (settings, _, batch_size) in enumerate([*JOBS, *PAPER]):
        wanted = naive(settings, batch_size)
        found = [
            load_file(shared_out[size] / f"{number}.{rank}.safetensors") for rank in range(size)
        ]
        for other in found[1:]:
            assert all(torch.equal(found[0][n], other[n]) for n in wanted)
        assert_equal(found[0], wanted)


@pytest.mark.parametrize("name", sorted(every.VARIANTS.keys() - {"zero_shot"}))
def test_every_method_in_parts(name: str) -> None:
    model = every.model(name)
    batch = tiny.batch(7, every.FRAMES)
    results = []
    for micro_batch in (None, 3):
        model.zero_grad(set_to_none=True)
        terms, _ = backward(model, batch, "fp32", micro_batch=micro_batch)
        grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        results.append({**terms, **grads})
    assert_equal(results[1], results[0])


class Dropped(LoRA):
    """A method with a random part."""

    def attn_out(self, i: int, state: State, y: Tensor) -> Tensor:
        return F.dropout(y, 0.3)


def test_both_passes_draw_the_same() -> None:
    def model() -> Retriever:
        backbone, settings = tiny.backbone(), tiny.settings("lora")
        made = Retriever(backbone, Dropped(backbone.dims, settings))
        made.method.initialise(0)
        tiny.shake(made.method)
        return made

    batch = tiny.batch(6)
    cached, graph = model(), model()
    terms, _ = backward(cached, batch, "fp32", micro_batch=2, seed=11)
    outs = []
    for start in (0, 2, 4):  # the same draws, in one graph
        torch.manual_seed(11 + start)
        part = {n: t[start : start + 2] for n, t in batch.items()}
        outs.append(graph(to_device(part, torch.device("cpu"))))
    joined = outs[0]
    for name in ("text", "frames", "video"):
        setattr(joined, name, torch.cat([getattr(out, name) for out in outs]))
    loss = graph.loss_of(joined, batch)["loss"]
    loss.backward()
    torch.testing.assert_close(terms["loss"], loss.detach())
    for (name, one), other in zip(cached.named_parameters(), graph.parameters(), strict=True):
        if one.requires_grad:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)
    other_draws, _ = backward(model(), batch, "fp32", micro_batch=2, seed=12)
    assert not torch.equal(other_draws["loss"], terms["loss"])


def test_first_pass_keeps_no_graph() -> None:
    """The point of micro-batches: what is kept for the backward pass is that of one of them."""
    model, batch = tiny.model("lora"), tiny.batch(8)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def kept(micro_batch: int | None) -> int:
        held: list[int] = [0]

        class Count:
            def __init__(self, tensor: Tensor) -> None:
                own = tensor.untyped_storage().data_ptr() not in weights
                self.tensor, self.size = tensor, tensor.numel() * own
                held.append(held[-1] + self.size)

            def __del__(self) -> None:
                held.append(held[-1] - self.size)

        with torch.autograd.graph.saved_tensors_hooks(Count, lambda count: count.tensor):
            backward(model, batch, "fp32", micro_batch=micro_batch)
        return max(held)

    assert kept(2) < 0.5 * kept(None)


def test_features_are_float32_in_half_precision() -> None:
    model = tiny.model()
    assert {t.dtype for t in encode(model, tiny.batch(), "bf16").values()} == {torch.float32}


@pytest.mark.parametrize("size", [0, -1])
def test_micro_batch_without_samples_is_refused(size: int) -> None:
    with pytest.raises(UserError, match="1 or more"):
        backward(tiny.model("lora"), tiny.batch(), "fp32", micro_batch=size)
