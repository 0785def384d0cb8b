"""`train`: one run and seed from its config to its adapter."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from discovla.errors import UserError
from discovla.training.checkpoint import Run, open_run, read_adapter, trained_parameters
from discovla.training.data import LoaderBatches, data_identity, open_annotations, training_set
from discovla.training.device import reproducible
from discovla.training.gradients import check_micro_batch
from discovla.training.optim import check_optimisation
from discovla.training.processes import ALONE, World
from discovla.training.state import STATE_FOLDER, Identity, remove_state
from discovla.training.trainer import ADAPTER_NAME, Plan, Trainer

LOG = logging.getLogger(__name__)


def train(
    run_config: Mapping[str, Any],
    *,
    seed: int,
    annotations: str | Path,
    frames_dir: str | Path,
    captions: str | Path | None,
    output_dir: str | Path,
    device: str = "auto",
    workers: int = 0,
    save_every: int = 200,
    log_every: int = 20,
    micro_batch: int | None = None,
    recompute: bool = False,
    world: World = ALONE,
    allow_missing: bool = False,
    where: str = "config.json",
) -> Path:
    """Train one run with one seed, or go on with a training that was interrupted.

    Args:
        run_config: content of the run's config.json.
        seed: of initial values, order and augmentation.
        annotations: the canonical annotations.
        frames_dir: folder of the frame store.
        captions: table of pseudo captions; needed if α or β > 0.
        output_dir: receives adapter.safetensors, curve.csv, checkpoints/ and, until the end,
            state/.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        workers: loader processes; their number changes no result.
        save_every: steps between two savings of the state.
        log_every: steps between two readings of the losses.
        micro_batch: samples encoded at a time, by each process; None for all of them. Changes
            memory and rounding only.
        recompute: keep only the blocks' inputs for the backward pass, which computes the blocks
            again; changes memory and time, and not a bit of the result.
        world: the processes that train together (`processes.joined`), and which this one is.
        allow_missing: leave clips without frames out, listed in the adapter's metadata.
        where: the config's file, for error messages.

    Returns:
        The adapter's path. An adapter of the very same training is left as it is.

    Raises:
        UserError: inputs that are absent, damaged or of another run, and losses not finite.
        KeyboardInterrupt: SIGINT or SIGTERM, after the state was saved.
    """
    folder = Path(output_dir)
    if seed < 0 or workers < 0:
        raise UserError(f"seed {seed}, {workers} workers: give 0 or more")
    if save_every < 1 or log_every < 1:
        raise UserError(f"save every {save_every}, log every {log_every} steps: give 1 or more")
    check_micro_batch(micro_batch)
    run = open_run(run_config, seed=seed, device=world.device(device), where=where)
    parameters = trained_parameters(run.retriever)
    if not parameters:
        raise UserError(
            f"run {run.run_id} trains nothing (method {run.settings.method}); go on with "
            "'discovla features' without --adapter"
        )
    check_optimisation(run.settings)
    pairs, annotations_id = open_annotations(annotations, run_config, "train")
    dataset = training_set(run, pairs, frames_dir, captions, seed=seed, allow_missing=allow_missing)
    identity = Identity(run.run_id, seed, data_identity(annotations_id, dataset.excluded))
    adapter = folder / ADAPTER_NAME
    done = _is_done(adapter, identity)
    world.check_equal("training and adapter", f"{identity}, {'done' if done else 'to be done'}")
    if done:
        LOG.info("%s is there already; nothing to train", adapter)
        if world.leads:
            remove_state(folder / STATE_FOLDER)  # of one that was killed just before that
        return adapter
    plan = Plan.of(len(dataset), run.settings)
    target = next(iter(parameters.values())).device
    if world.leads:
        _announce(run, plan, parameters, len(dataset), dataset.excluded, target)
    run.retriever.recompute = recompute
    if run.settings.dtype == "bf16":
        run.retriever.halve_frozen()
    pin = target.type == "cuda"
    batches = LoaderBatches(dataset, run.settings.batch_size, seed, workers, pin, world, target)
    began = time.monotonic()
    with reproducible(target):
        Trainer(
            run.retriever,
            run.settings,
            batches,
            plan,
            identity,
            folder,
            excluded=dataset.excluded,
            save_every=save_every,
            log_every=log_every,
            micro_batch=micro_batch,
            world=world,
        ).fit()
    if world.leads:
        LOG.info("%s written after %.0f s", adapter, time.monotonic() - began)
    return adapter


def _is_done(adapter: Path, identity: Identity) -> bool:
    """Whether this very training has been finished here; `UserError` if another has."""
    if not adapter.exists():
        return False
    _, metadata = read_adapter(adapter)
    for key, own in identity.to_dict().items():
        if metadata[key] != own:
            raise UserError(
                f"{adapter}: trained with {key} {metadata[key]}, this is {key} {own}. Remove it, "
                "or give another --output."
            )
    return True


def _announce(
    run: Run,
    plan: Plan,
    parameters: Mapping[str, torch.nn.Parameter],
    samples: int,
    excluded: list[str],
    device: torch.device,
) -> None:
    trained = sum(p.numel() for p in parameters.values())
    frozen = sum(p.numel() for p in run.retriever.parameters()) - trained
    LOG.info(
        "%s: %d trained parameters, %d frozen; %d pairs, %d steps of %d, %d per epoch; %s, %s",
        *(run.run_id, trained, frozen, samples, plan.total_steps, run.settings.batch_size),
        *(plan.steps_per_epoch, device, run.settings.dtype),
    )
    if excluded:
        shown = ", ".join(map(repr, excluded[:5]))
        LOG.warning("%d training clips without frames are left out: %s", len(excluded), shown)
