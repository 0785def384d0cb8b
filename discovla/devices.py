"""Which device a name means, on machines with one GPU, several, or none."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from discovla.cards import take_card
from discovla.errors import UserError

log = logging.getLogger(__name__)


def resolve_device(name: str) -> torch.device:
    """The device called `auto` (a GPU if there is any), `cpu`, `cuda` or `cuda:N`.

    Without a number it is a GPU that no other process of this user has taken, so that several jobs
    at the same time use several GPUs. A GPU becomes this process' current device: what torch puts
    on "the" GPU without being told, such as the loader's pinned memory, would else open the first.

    Raises:
        UserError: no such device, here or at all.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto" and not count:
        return torch.device("cpu")
    try:
        device = torch.device("cuda" if name == "auto" else name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UserError(f"device is {name!r}; allowed: auto, cpu, cuda, cuda:N")
    if device.type == "cpu":
        return device
    if (device.index or 0) >= count:
        raise UserError(
            f"device is {name!r}, but torch sees {count} CUDA devices; give --device cpu, or "
            "install a torch that fits the driver"
        )
    if device.index is None:
        device = torch.device("cuda", _free_card(count))
    else:  # who looks for a free one afterwards must see that this one is taken
        take_card([_name_of(device.index)])
    torch.cuda.set_device(device)
    return device


@contextmanager
def full_float32() -> Iterator[None]:
    """Products of float32 are float32 while the block runs, not TF32 of 10 bits.

    By default convolutions and recurrent nets on a GPU are not, and with
    TORCH_ALLOW_TF32_CUBLAS_OVERRIDE, which NVIDIA's containers set, matrix products neither.
    """
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _name_of(number: int) -> str:
    return str(torch.cuda.get_device_properties(number).uuid)


def _free_card(count: int) -> int:
    """A card that no other process has taken; if there is none, the one with the most memory."""
    taken = take_card([_name_of(number) for number in range(count)])
    if taken is not None:
        return taken
    log.warning("all %d GPUs are taken by other processes; this one shares a card", count)
    return max(range(count), key=lambda n: torch.cuda.mem_get_info(n)[0])
