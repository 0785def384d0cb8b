"""Training data of a run: opened, checked against its config, and served in batches."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from discovla.captioning.table import CaptionTable
from discovla.captioning.tokens import CaptionTokens
from discovla.data.annotations.base import of_split, read_annotations, read_metadata
from discovla.data.augment_device import to_pictures
from discovla.data.dataset import RetrievalDataset, Tokenize, collate, leave_signals_to_parent
from discovla.data.sampler import EpochSampler, Key
from discovla.data.scratch import near
from discovla.data.store import FrameStore
from discovla.errors import UserError
from discovla.models.backbone import Backbone
from discovla.storage.files import content_hash
from discovla.training.checkpoint import Run
from discovla.training.processes import ALONE, World

LOG = logging.getLogger(__name__)
_CPU = torch.device("cpu")


def open_annotations(
    path: str | Path, config: Mapping[str, Any], split: str
) -> tuple[pd.DataFrame, str]:
    """The rows of one split, and the data_id of the whole file; `UserError` for other data."""
    metadata = read_metadata(path)
    if metadata["dataset"] != config["dataset"]:
        raise UserError(
            f"{path}: annotations of {metadata['dataset']}, but run {config['run_id']} is of "
            f"{config['dataset']}; give files of one dataset"
        )
    return of_split(read_annotations(path), split), str(metadata["data_id"])


def open_frames(folder: str | Path, config: Mapping[str, Any]) -> FrameStore:
    """The frames that a run is defined on, from near by; `UserError` if these are others."""
    store = FrameStore(near(folder), config["frames_id"])
    if store.frames != config["settings"]["frames"]:
        raise UserError(
            f"{folder}: {store.frames} frames per clip; run {config['run_id']} needs "
            f"{config['settings']['frames']}"
        )
    return store


def data_identity(annotations_id: str, excluded: Sequence[str]) -> str:
    """data_id of results on these annotations without the `excluded` clips."""
    if not excluded:
        return annotations_id
    return content_hash({"annotations": annotations_id, "excluded": sorted(excluded)})


def token_ids(backbone: Backbone) -> Tokenize:
    """The backbone's tokenizer as data sets want it; they find the mask by the end mark."""
    return lambda texts, words: backbone.tokenize(texts, words)[0]


def training_set(
    run: Run,
    pairs: pd.DataFrame,
    frames_dir: str | Path,
    captions: str | Path | None,
    *,
    seed: int,
    allow_missing: bool,
) -> RetrievalDataset:
    """The training pairs of a run.

    Raises:
        UserError: frames or pseudo captions are absent, incomplete, or those of another run.
    """
    settings = run.settings
    tokens = None
    if settings.needs_captions:
        if captions is None:
            raise UserError(
                f"run {run.run_id} reads pseudo captions (alpha {settings.alpha:g}, beta "
                f"{settings.beta:g}); give --captions results/{run.config['dataset']}/captions/"
                f"{run.config['captions_id']}.parquet"
            )
        table = CaptionTable(
            captions, captions_id=run.config["captions_id"], frames_id=run.config["frames_id"]
        )
        pairs = _with_captions(pairs, table)
        tokenizer = run.backbone.tokenizer_for(settings.words)
        tokens = CaptionTokens(table, tokenizer, settings.words)
    return RetrievalDataset(
        pairs,
        open_frames(frames_dir, run.config),
        token_ids(run.backbone),
        settings.words,
        run.backbone.image_size,
        augment=settings.augment,
        augment_on=settings.augment_on,
        captions=tokens,
        train_captions=settings.train_captions,
        seed=seed,
        allow_missing=allow_missing,
    )


def _with_captions(pairs: pd.DataFrame, table: CaptionTable) -> pd.DataFrame:
    """Without the pairs that the authors' file of pseudo captions lacks, as in their code."""
    lacking = pairs["caption_id"].isin(table.absent)
    if not lacking.any():
        return pairs
    LOG.warning(
        "%d of %d training pairs are left out: %s has no pseudo captions for them",
        *(int(lacking.sum()), len(pairs), table.path),
    )
    return pairs[~lacking].reset_index(drop=True)


class LoaderBatches:
    """Batches of a training set (`trainer.Batches`), loaded in this or in other processes.

    Loader processes live as long as this object; the order, and what is drawn for a sample, come
    with the keys that they are sent.

    Args:
        dataset: the training pairs.
        size: B.
        seed: of the run; with the epoch it decides the order.
        workers: loader processes; 0 loads in this one. Their number changes nothing.
        pin: page-locked memory, for copies to a GPU that nothing waits for.
        world: the processes; this one loads its share of every batch, whose order does not depend
            on their number.
        device: where native frames are made into pictures, if the set hands them out.

    Raises:
        UserError: B does not divide among the processes.
    """

    def __init__(
        self,
        dataset: RetrievalDataset,
        size: int,
        seed: int,
        workers: int = 0,
        pin: bool = False,
        world: World = ALONE,
        device: torch.device = _CPU,
    ) -> None:
        self.dataset, self.size, self.seed, self.device = dataset, size, seed, device
        self.share = world.share(size)
        self.steps_per_epoch = len(dataset) // size
        self._clips = list(dict.fromkeys(dataset.clip_ids))
        self._keys: list[list[Key]] = []
        """Of the epoch that is being loaded; the loader reads this very list."""
        self._loader = DataLoader(
            dataset,
            batch_sampler=self._keys,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=pin,
            worker_init_fn=leave_signals_to_parent,
            prefetch_factor=2 if workers else None,
            persistent_workers=workers > 0,
        )

    def epoch(self, epoch: int, skip: int) -> Iterator[Mapping[str, Tensor]]:
        """This process' share of the batches of an epoch after the first `skip`."""
        sampler = EpochSampler(len(self.dataset), self.size, self.seed, epoch, skip)
        self._keys[:] = [keys[self.share] for keys in sampler]
        for batch in self._loader:
            if "pixels" in batch:
                batch = to_pictures(batch, self.dataset.image_size, self.device)
            yield batch

    def clip_ids(self, video_index: Tensor) -> list[str]:
        """Ids of the clips that a batch names by `video_index`, in its order."""
        return [self._clips[number] for number in video_index.tolist()]
