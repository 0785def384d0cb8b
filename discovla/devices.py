"""Which device a name means, on machines with one GPU, several, or none."""

from __future__ import annotations

import logging

import torch

from discovla.cards import take_card
from discovla.errors import UserError

log = logging.getLogger(__name__)


def resolve_device(name: str) -> torch.device:
    """The device called `auto` (a GPU if there is any), `cpu`, `cuda` or `cuda:N`.

    Without a number it is a GPU that no other process of this user has taken, so that several jobs
    at the same time use several GPUs.

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
    return torch.device("cuda", _free_card(count)) if device.index is None else device


def _free_card(count: int) -> int:
    """A card that no other process has taken; if there is none, the one with the most memory."""
    names = [str(torch.cuda.get_device_properties(n).uuid) for n in range(count)]
    taken = take_card(names)
    if taken is not None:
        return taken
    log.warning("all %d GPUs are taken by other processes; this one shares a card", count)
    return max(range(count), key=lambda n: torch.cuda.mem_get_info(n)[0])
