"""Training data that are tensors from the start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from discovla.models.retriever import Retriever
from discovla.training.state import Identity
from discovla.training.trainer import Plan, Trainer
from tests.models import tiny

SAMPLES = 11
IDENTITY = Identity("lora-tiny-0123456789", 1, "abcdefabcd")


class FakeBatches:
    """Whole batches of a fixed set, in an order that depends on (seed, epoch)."""

    def __init__(self, size: int, seed: int = 0, samples: int = SAMPLES) -> None:
        self.all = tiny.batch(samples)
        self.all["video_index"] = torch.arange(samples)
        self.size, self.seed = size, seed
        self.steps_per_epoch = samples // size
        self.interrupt_at: int | None = None
        self.served = 0

    def epoch(self, epoch: int, skip: int) -> Iterator[Mapping[str, Tensor]]:
        generator = torch.Generator().manual_seed(1000 * self.seed + epoch)
        order = torch.randperm(len(self.all["video_index"]), generator=generator)
        for place in range(skip, self.steps_per_epoch):
            if self.interrupt_at == self.served:
                raise RuntimeError("pulled the plug")
            self.served += 1
            rows = order[place * self.size : (place + 1) * self.size]
            yield {name: tensor[rows] for name, tensor in self.all.items()}

    def clip_ids(self, video_index: Tensor) -> list[str]:
        return [f"clip-{i}" for i in video_index.tolist()]


def trainer(
    folder: Path, batches: FakeBatches | None = None, model: Retriever | None = None, **changes: Any
) -> Trainer:
    """A trainer of a tiny DiscoVLA; `changes` go to the settings, or to the trainer itself."""
    own = {k: changes.pop(k) for k in ("save_every", "log_every", "identity") if k in changes}
    values = {"epochs": 3, "lr": 1e-2, **changes}
    settings = tiny.settings(**values)
    model = model or tiny.model(shaken=False, **values)
    plan = Plan.of(SAMPLES, settings)
    identity = own.pop("identity", IDENTITY)
    batches = batches or FakeBatches(settings.batch_size)
    return Trainer(model, settings, batches, plan, identity, folder, **own)
