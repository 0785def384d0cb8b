"""Batches come from the keys of their epoch alone, whatever loaders did before."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from discovla.data.sampler import EpochSampler, Key
from discovla.training.data import LoaderBatches


class Keys(Dataset[dict[str, Any]]):
    """Every sample is its own key and the process that made it."""

    clip_ids = ("a", "b")

    def __len__(self) -> int:
        return 17

    def __getitem__(self, key: Key) -> dict[str, Tensor]:
        return {"key": torch.tensor(key), "process": torch.tensor(os.getpid())}


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_live_on_and_every_epoch_is_its_own(workers: int) -> None:
    batches = LoaderBatches(Keys(), 4, 3, workers)  # type: ignore[arg-type]
    processes = set()
    for epoch, skip, stop in ((0, 0, 2), (1, 0, 9), (1, 3, 9), (0, 1, 9), (5, 0, 9)):
        wanted = list(EpochSampler(17, 4, 3, epoch, skip))[:stop]
        found = []
        for batch in batches.epoch(epoch, skip):
            found.append([tuple(key) for key in batch["key"].tolist()])
            processes |= set(batch["process"].tolist())
            if len(found) == stop:  # an epoch that is left early
                break
        assert found == wanted
    assert len(processes) == max(1, workers)
