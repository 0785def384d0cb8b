"""Exact gradients of the loss of a whole batch, however it is split over passes and processes.

A contrastive loss compares every sample with every other one, so that it is no mean over parts of
the batch. It needs only features, though: all parts are encoded without a graph, the loss of the
joined features gives the gradient of each, and then every part is encoded once more, with its
graph, and takes its share of that gradient back to the trained tensors (cached gradients; Gao et
al., 2021). A batch in one part is encoded once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from discovla.errors import UserError
from discovla.models.hooks import Batch, Outputs
from discovla.models.retriever import Retriever
from discovla.training.device import to_device
from discovla.training.processes import ALONE, World

SCALE = "logit_scale"
SHARED = ("video_index", "video_mask")
"""What the losses may read of a batch besides features."""

Features = dict[str, Tensor]


class Losses(NamedTuple):
    """Of the global batch, equal in all processes."""

    terms: dict[str, Tensor]
    """The total under `loss` and its terms, without graph."""
    shared: dict[str, Tensor]
    """What `SHARED` names of the global batch, where it is known."""


def backward(
    retriever: Retriever,
    batch: Batch,
    dtype: str,
    *,
    micro_batch: int | None = None,
    world: World = ALONE,
    seed: int = 0,
) -> Losses:
    """Add the gradient of the global batch's loss to the trained tensors.

    Args:
        retriever: on its device; the same in all processes.
        batch: this process' share, on any device, in the order of `World.share`.
        dtype: `bf16` encodes under autocast; similarities and losses are float32.
        micro_batch: samples that this process encodes at a time; None encodes all at once.
        world: the processes that share the batch.
        seed: of what is random in the model; each part draws by its place in the global batch, the
            same in both of its passes.
    """
    size = len(batch["video"])
    first = world.rank * size
    step = check_micro_batch(micro_batch) or size
    starts = range(0, size, step)
    device = retriever.clip.logit_scale.device
    parts = [
        to_device({name: t[start : start + step] for name, t in batch.items()}, device)
        for start in starts
    ]
    at_once = len(parts) == 1

    def encoded(number: int) -> Features:
        torch.manual_seed(seed + first + starts[number])
        return encode(retriever, parts[number], dtype)

    with torch.set_grad_enabled(at_once):
        outs = [encoded(number) for number in range(len(parts))]
    joined = {n: world.gather(torch.cat([o[n].detach() for o in outs])) for n in outs[0]}
    known = [name for name in SHARED if name in batch]
    shared = {n: world.gather(torch.cat([part[n] for part in parts])) for n in known}
    terms, grads = feature_gradients(retriever, joined, shared)
    if SCALE in grads and retriever.clip.logit_scale.requires_grad:
        # Every process has all of this gradient, which must enter the sum once.
        retriever.logit_scale.backward(grads[SCALE] * world.leads)
    for number, start in enumerate(starts):
        found = outs[0] if at_once else encoded(number)
        rows = slice(first + start, first + start + len(parts[number]["video"]))
        _pass_back(found, {n: grads[n][rows] for n in found if n in grads})
    world.sum_gradients(p for p in retriever.parameters() if p.requires_grad)
    return Losses(terms, shared)


def check_micro_batch(micro_batch: int | None) -> int | None:
    """Refuse a micro-batch without samples; raise `UserError`."""
    if micro_batch is not None and micro_batch < 1:
        raise UserError(f"micro-batch of {micro_batch} samples: give 1 or more, or leave it out")
    return micro_batch


def encode(retriever: Retriever, batch: Batch, dtype: str) -> Features:
    """Features of samples (b, …) by field of `Outputs`, float32; without the temperature."""
    device = batch["video"].device.type
    with torch.autocast(device, torch.bfloat16, enabled=dtype == "bf16"):
        out = retriever(batch)
    return {n: t for n, t in vars(out).items() if n != SCALE and t is not None}


def feature_gradients(
    retriever: Retriever, features: Mapping[str, Tensor], shared: Batch
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Loss terms of features, and the gradient of the loss with respect to each that it reads.

    The temperature is among them, as `logit_scale` (of its exponential).
    """
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in features.items()}
    leaves[SCALE] = retriever.logit_scale.detach().requires_grad_()
    terms = retriever.loss_of(Outputs(**leaves), shared)
    found = torch.autograd.grad(terms["loss"], list(leaves.values()), allow_unused=True)
    grads = {n: g for n, g in zip(leaves, found, strict=True) if g is not None}
    return {name: term.detach() for name, term in terms.items()}, grads


def _pass_back(features: Features, grads: Mapping[str, Tensor]) -> None:
    """From features to the trained tensors; some features may depend on none of them."""
    names = [name for name in grads if features[name].requires_grad]
    torch.autograd.backward([features[n] for n in names], [grads[n] for n in names])
