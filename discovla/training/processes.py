"""Several processes that train one model together, as torchrun starts them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from discovla.errors import UserError

PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others before it gives up."""
_VARIABLES = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class World:
    """This process among `size` of them; one process alone needs no communication.

    Every process works on its share of each batch. What crosses between them are features, the sum
    of the trained tensors' gradients, and whether to stop: results are those of one process up to
    rounding.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Place on its machine: the number of its GPU."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> World:
        """What torchrun says in WORLD_SIZE, RANK and LOCAL_RANK; alone if it says nothing.

        Raises:
            UserError: a variable is absent or no whole number.
        """
        found = os.environ if environment is None else environment
        try:
            if int(found.get("WORLD_SIZE", "1")) == 1:
                return cls()
            if absent := [name for name in _VARIABLES if name not in found]:
                raise UserError(
                    f"WORLD_SIZE is {found['WORLD_SIZE']}, but {', '.join(absent)} is not set; "
                    "start several processes with 'torchrun --nproc-per-node N -m discovla train "
                    "…', or unset WORLD_SIZE"
                )
            return cls(int(found["RANK"]), int(found["WORLD_SIZE"]), int(found["LOCAL_RANK"]))
        except ValueError as error:
            raise UserError(
                f"WORLD_SIZE, RANK, LOCAL_RANK must be whole numbers ({error})"
            ) from None

    @property
    def leads(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """The device of this process, where `name` is asked of all; see `resolve_device`.

        Raises:
            UserError: one GPU named for several processes, or fewer GPUs than processes.
        """
        if self.size == 1 or name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
            return name
        if name not in ("auto", "cuda"):
            raise UserError(f"device is {name!r} for {self.size} processes; give auto, cpu or cuda")
        if self.local_rank >= torch.cuda.device_count():
            raise UserError(
                f"process {self.local_rank} of this machine has no GPU: torch sees "
                f"{torch.cuda.device_count()}; start at most as many processes as there are GPUs"
            )
        return f"cuda:{self.local_rank}"

    def share(self, batch_size: int) -> slice:
        """The samples of a global batch that belong to this process.

        Raises:
            UserError: the batch does not divide evenly.
        """
        if batch_size % self.size:
            allowed = [str(n) for n in range(1, batch_size + 1) if batch_size % n == 0]
            raise UserError(
                f"a batch of {batch_size} does not divide among {self.size} processes; start "
                f"{', '.join(allowed)} of them"
            )
        each = batch_size // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def gather(self, tensor: Tensor) -> Tensor:
        """Tensors (b, …) of all processes as (size · b, …), in their order; without graph."""
        if self.size == 1:
            return tensor
        if tensor.dtype == torch.bool:  # not every backend sends it
            return self.gather(tensor.byte()).bool()
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        with self._explained():
            dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over all processes, in one message."""
        if self.size == 1:
            return
        grads = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([grad.flatten() for grad in grads])
        with self._explained():
            dist.all_reduce(flat)
        for grad, summed in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
            grad.copy_(summed.view_as(grad))

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        if self.size == 1:
            return flag
        said = torch.tensor([int(flag)])
        with self._explained():
            dist.all_reduce(said, dist.ReduceOp.MAX)
        return bool(said.item())

    def check_equal(self, what: str, value: str) -> None:
        """Raise `UserError` unless `value` is the same in all processes."""
        digest = hashlib.sha256(value.encode()).digest()[:8]
        own = torch.tensor([int.from_bytes(digest, "big", signed=True)])
        if (self.gather(own) != own).any():
            raise UserError(
                f"process {self.rank} of {self.size}: {what} differ between processes (here: "
                f"{value}); all need the same files, options and --output folder"
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What a message that did not get through means."""
        try:
            yield
        except RuntimeError as error:
            raise UserError(
                f"process {self.rank} of {self.size}: another process has ended or cannot be "
                f"reached ({str(error).split('. ')[0]}). All stop; look for the first error "
                "above. The same command goes on from the last saved state."
            ) from None


ALONE = World()


@contextmanager
def joined(device: str) -> Iterator[World]:
    """Meet the other processes that torchrun has started, if it has, for as long as the block runs.

    Args:
        device: as given for all of them; decides what they talk through (gloo or NCCL).

    Raises:
        UserError: they cannot be reached, or torchrun's variables are incomplete.
    """
    world = World.from_environment()
    if world.size == 1:
        yield world
        return
    backend, own = "gloo", world.device(device)
    if own.startswith("cuda"):
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(own)
    with world._explained():
        dist.init_process_group(backend, rank=world.rank, world_size=world.size, timeout=PATIENCE)
    yield world
    # Not after an error: saying goodbye would wait for the processes that are gone.
    dist.destroy_process_group()
