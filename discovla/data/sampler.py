"""The order of training samples: a function of (seed, epoch), in whole batches, resumable."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from discovla.errors import UserError

Key = tuple[int, int]
"""(epoch, sample): a loader process learns the epoch from the key, so none holds a state."""


def generator(seed: int, name: str, *numbers: int) -> np.random.Generator:
    """A random generator of its own for each use `name` and each further number."""
    return np.random.default_rng([seed, zlib.crc32(name.encode()), *numbers])


class EpochSampler(Sampler[list[Key]]):
    """Batches of one epoch; the incomplete last one is dropped.

    Use as `DataLoader(dataset, batch_sampler=EpochSampler(...))`.

    Args:
        n: samples in the dataset.
        batch: samples per batch.
        seed: of the run.
        epoch: which epoch, from 0.
        start: batches to leave out at the beginning, when a training is resumed.

    Raises:
        UserError: fewer samples than one batch.
    """

    def __init__(self, n: int, batch: int, seed: int, epoch: int, start: int = 0) -> None:
        if n < batch:
            raise UserError(
                f"{n} training pairs are fewer than one batch of {batch}; lower batch_size"
            )
        self.n, self.batch, self.seed, self.epoch, self.start = n, batch, seed, epoch, start

    def __len__(self) -> int:
        return max(self.n // self.batch - self.start, 0)

    def __iter__(self) -> Iterator[list[Key]]:
        order = generator(self.seed, "order", self.epoch).permutation(self.n)
        for step in range(self.start, self.n // self.batch):
            chosen = order[step * self.batch : (step + 1) * self.batch]
            yield [(self.epoch, int(sample)) for sample in chosen]
