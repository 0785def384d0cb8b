"""The loop over steps: exact, resumable, and without waits that the arithmetic does not need."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from discovla.errors import UserError
from discovla.interruption import StopRequest
from discovla.models.retriever import Retriever
from discovla.settings import RunSettings
from discovla.training.checkpoint import adapter_metadata, save_adapter, trained_parameters
from discovla.training.cost import Meter
from discovla.training.gradients import backward, check_micro_batch
from discovla.training.optim import Schedule, clip_gradients, optimiser_of, set_learning_rate
from discovla.training.processes import ALONE, World
from discovla.training.progress import Curve, Progress, Row
from discovla.training.state import (
    STATE_FOLDER,
    Identity,
    load_state,
    remove_state,
    save_state,
)

LOG = logging.getLogger(__name__)
ADAPTER_NAME = "adapter.safetensors"
CHECKPOINTS = "checkpoints"


class Batches(Protocol):
    """Training batches on any device, whose content depends on (seed, epoch, place) alone."""

    steps_per_epoch: int

    def epoch(self, epoch: int, skip: int) -> Iterator[Mapping[str, Tensor]]:
        """The batches of an epoch after the first `skip`."""

    def clip_ids(self, video_index: Tensor) -> list[str]:
        """Ids of the clips that a batch names by `video_index`, in its order."""


@dataclass(frozen=True)
class Plan:
    """How long a training is."""

    steps_per_epoch: int
    total_steps: int

    @classmethod
    def of(cls, samples: int, settings: RunSettings) -> Plan:
        """Whole batches only: what is left over at the end of an epoch is dropped (App. A).

        Raises:
            UserError: not enough samples for a single batch.
        """
        steps = samples // settings.batch_size
        if steps == 0:
            raise UserError(
                f"{samples} training samples do not fill one batch of {settings.batch_size}; "
                "bring more data or set a smaller batch_size"
            )
        total = steps * settings.epochs
        return cls(steps, min(total, settings.max_steps or total))


@dataclass(frozen=True)
class _Pending:
    """A step whose numbers are still on the device."""

    step: int
    lr: float
    numbers: Tensor
    """Loss terms and the gradient's norm, in the order of `Trainer._names`."""
    video_index: Tensor
    """(B,) the step's clips, should it fail."""


class Trainer:
    """Trains one model, in this process alone or together with others.

    Args:
        retriever: on its device; its trained tensors are changed in place.
        settings: of the run.
        batches: where training data come from.
        plan: number of steps.
        identity: run, seed and data.
        folder: receives curve.csv, checkpoints/, state/ and at last adapter.safetensors.
        excluded: clips left out, for the metadata.
        save_every: steps between two savings of the state.
        log_every: steps between two readings of the losses, each of which waits for the device.
        micro_batch: samples encoded at a time, None for all; changes rounding and memory only.
        world: the processes; each is given its share of every batch, the first one writes.
    """

    def __init__(
        self,
        retriever: Retriever,
        settings: RunSettings,
        batches: Batches,
        plan: Plan,
        identity: Identity,
        folder: Path,
        *,
        excluded: list[str] | None = None,
        save_every: int = 200,
        log_every: int = 20,
        micro_batch: int | None = None,
        world: World = ALONE,
    ) -> None:
        self.retriever, self.settings, self.batches = retriever, settings, batches
        self.plan, self.identity, self.folder = plan, identity, folder
        self.excluded = excluded or []
        self.save_every, self.log_every = save_every, log_every
        self.micro_batch, self.world = check_micro_batch(micro_batch), world
        self.parameters = trained_parameters(retriever)
        self.device = next(iter(self.parameters.values())).device
        self.schedule = Schedule.of(plan.total_steps, settings)
        self.optimiser = optimiser_of(retriever, self.parameters, settings)
        self.curve = Curve(folder / "curve.csv")
        self._meter = Meter(folder, identity, self.device, world)
        self._names: list[str] = []
        self._pending: list[_Pending] = []
        self._read_at = time.monotonic()

    @property
    def _state_folder(self) -> Path:
        return self.folder / STATE_FOLDER

    def fit(self) -> None:
        """Train from the beginning, or from the saved state, to the end.

        Raises:
            UserError: a loss or gradient that is not finite, the state of another training, or
                another process that has ended.
            KeyboardInterrupt: SIGINT, or (`Terminated`) SIGTERM; the state has been saved.
        """
        step, self.curve.rows = load_state(
            self._state_folder, self.identity, self.parameters, self.optimiser
        )
        self.world.check_equal(
            "training, length and saved state", f"{self.identity}, {self.plan}, step {step}"
        )
        if step and self.world.leads:
            LOG.info("%s: going on after step %d of %d", self._what, step, self.plan.total_steps)
        self._meter.resume(step)
        progress = Progress(
            self._what, step, self.plan.total_steps, self.device, shown=self.world.leads
        )
        self._read_at = time.monotonic()
        self.retriever.train()
        with StopRequest() as stop:
            try:
                self._run(step, progress, stop)
            finally:
                progress.close()
                self.retriever.eval()
            # A stop that is asked for now comes too late: the training is done in a moment.
            self._save_adapter(self.folder / ADAPTER_NAME, self.plan.total_steps, "last")
            if self.world.leads:
                remove_state(self._state_folder)

    @property
    def _what(self) -> str:
        return f"{self.identity.run_id} seed {self.identity.seed}"

    def _run(self, step: int, progress: Progress, stop: StopRequest) -> None:
        per_epoch, total = self.plan.steps_per_epoch, self.plan.total_steps
        while step < total:
            epoch, skip = divmod(step, per_epoch)
            for batch in self.batches.epoch(epoch, skip):
                self._step(step, batch)
                step += 1
                self._after_step(step, progress, stop)
                if step == total:
                    break
            else:
                assert step == (epoch + 1) * per_epoch, "an epoch has ended early"

    def _step(self, step: int, batch: Mapping[str, Tensor]) -> None:
        """Step number `step` (from 0)."""
        factor = self.schedule.factor(step)
        set_learning_rate(self.optimiser, factor)
        found, shared = improve(
            self.retriever,
            self.parameters.values(),
            self.optimiser,
            batch,
            self.settings,
            micro_batch=self.micro_batch,
            world=self.world,
            # Nothing random in the model may depend on the steps before: a resumed one has none.
            seed=step_seed(self.identity.seed, step),
        )
        self._names = list(found)
        numbers = torch.stack([number.detach().float() for number in found.values()])
        lr = self.settings.lr * factor
        self._pending.append(_Pending(step + 1, lr, numbers, shared["video_index"]))

    def _after_step(self, step: int, progress: Progress, stop: StopRequest) -> None:
        """Read, save and stop where it is time to, `step` steps being done."""
        ends_epoch = step % self.plan.steps_per_epoch == 0
        ends = step == self.plan.total_steps
        stops = self.world.any(stop.requested)
        saves = step % self.save_every == 0 or ends_epoch or ends or stops
        if saves or progress.is_due() or step % self.log_every == 0:
            progress.update(step, self._read_numbers())
        if ends_epoch:
            epoch = f"epoch{step // self.plan.steps_per_epoch}"
            self._save_adapter(self.folder / CHECKPOINTS / f"{epoch}.safetensors", step, epoch)
        if saves:
            cost = self._meter.write(step)
            if ends and self.world.leads:
                LOG.info("%s: %s", self._what, cost)
        if saves and self.world.leads:
            self.curve.write()
            save_state(
                *(self._state_folder, self.identity, step),
                *(self.parameters, self.optimiser, self.curve.rows),
            )
        if stops and not ends:
            LOG.warning("%s: stopped after step %d; run it again to go on", self._what, step)
            stop.obey(stops)

    def _read_numbers(self) -> Row:
        """Bring the pending steps' numbers to the curve, with one wait for the device."""
        table = torch.stack([p.numbers for p in self._pending]).tolist()
        now = time.monotonic()
        samples = len(self._pending) * self.settings.batch_size
        speed = samples / max(now - self._read_at, 1e-9)
        for pending, values in zip(self._pending, table, strict=True):
            numbers = dict(zip(self._names, values, strict=True))
            if not all(map(math.isfinite, values)):
                raise UserError(self._not_finite(pending, numbers))
            row: Row = {"step": pending.step, "lr": pending.lr, **numbers}
            self.curve.rows.append({**row, "samples_per_second": speed})
        self._pending.clear()
        self._read_at = now
        return self.curve.rows[-1]

    def _not_finite(self, pending: _Pending, numbers: Mapping[str, float]) -> str:
        terms = ", ".join(f"{name} {value:g}" for name, value in numbers.items())
        clips = ", ".join(map(repr, self.batches.clip_ids(pending.video_index)))
        return (
            f"run {self._what}: not finite at step {pending.step} of {self.plan.total_steps} "
            f"(lr {pending.lr:g}): {terms}.\nClips of the batch: {clips}.\n"
            "Nothing has been written as done. Try a smaller lr or clip_norm, or dtype: fp32; if "
            "it comes back at the same step, look at these clips and their captions."
        )

    def _save_adapter(self, path: Path, step: int, selection: str) -> None:
        if not self.world.leads:
            return
        metadata = adapter_metadata(
            method=self.settings.method,
            step=step,
            selection=selection,
            excluded=self.excluded,
            run_id=self.identity.run_id,
            seed=self.identity.seed,
            data_id=self.identity.data_id,
        )
        save_adapter(path, self.retriever.trainable_state(), metadata)


def improve(
    retriever: Retriever,
    parameters: Iterable[nn.Parameter],
    optimiser: torch.optim.Optimizer,
    batch: Mapping[str, Tensor],
    settings: RunSettings,
    *,
    micro_batch: int | None = None,
    world: World = ALONE,
    seed: int = 0,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """One step on one batch: losses, exact gradients, clipping, the optimiser, the temperature.

    `micro_batch`, `world` and `seed` are those of `gradients.backward`.

    Returns:
        The terms of the loss before the step, with the gradient's norm as `grad_norm`; and what the
        loss has read of the global batch, `video_index` among it.
    """
    optimiser.zero_grad(set_to_none=True)
    terms, shared = backward(
        retriever, batch, settings.dtype, micro_batch=micro_batch, world=world, seed=seed
    )
    norm = clip_gradients(parameters, settings.clip_norm)
    optimiser.step()
    retriever.clamp_logit_scale()
    return {**terms, "grad_norm": norm}, shared


def step_seed(seed: int, step: int) -> int:
    """Seed of everything random in the model at a step."""
    digest = hashlib.sha256(f"{seed}/step/{step}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
