"""What a training has cost: hours, GPU hours, and energy where the driver counts it.

It stands in a file of its own, because an adapter must not depend on when or where it was made.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from discovla.storage.files import read_record, write_record
from discovla.training.processes import World
from discovla.training.state import Identity

COST_NAME = "cost.json"
SCHEMA = 1


@dataclass(frozen=True)
class Cost:
    """The content of cost.json, over all sessions of a training."""

    wall_seconds: float
    gpu_seconds: float | None
    """Wall time times GPUs; None on a CPU."""
    energy_joules: float | None
    """Of the GPUs alone; None where the driver does not count it."""
    sessions: int
    """How often it was started."""

    def __str__(self) -> str:
        parts = [] if self.gpu_seconds is None else [f"{self.gpu_seconds / 3600:.2f} GPU hours"]
        parts.append(f"{self.wall_seconds / 3600:.2f} wall hours")
        if self.energy_joules is not None:
            parts.append(f"{self.energy_joules / 3.6e6:.2f} kWh")
        return ", ".join(parts)


class Meter:
    """Measures one session and adds it to those before; every process has one.

    Args:
        folder: receives cost.json.
        identity: whose training it is.
        device: of this process.
        world: all processes.
    """

    def __init__(
        self, folder: Path, identity: Identity, device: torch.device, world: World
    ) -> None:
        self._path, self._identity = folder / COST_NAME, identity
        self._device, self._world = device, world
        self._before = Cost(0.0, 0.0, 0.0, 0)
        self._began, self._energy = time.monotonic(), energy_joules(device)

    def resume(self, step: int) -> None:
        """Take over what the sessions up to `step` have cost, as far as it was written."""
        if step == 0 or not self._path.exists():
            return
        found = read_record(self._path)
        if {k: found.get(k) for k in self._identity.to_dict()} == self._identity.to_dict():
            costs = (found[k] for k in ("wall_seconds", "gpu_seconds", "energy_joules", "sessions"))
            self._before = Cost(*costs)

    def write(self, step: int) -> Cost:
        """Write the sum so far; all processes call it, the first one writes."""
        wall = time.monotonic() - self._began
        on_gpu = self._device.type == "cuda"
        now = energy_joules(self._device)
        known = now is not None and self._energy is not None
        used = now - self._energy if known else float("nan")  # type: ignore[operator]
        energy = float(self._world.gather(torch.tensor([used], dtype=torch.float64)).sum())
        before = self._before
        cost = Cost(
            wall_seconds=round(before.wall_seconds + wall, 1),
            gpu_seconds=_added(before.gpu_seconds, wall * self._world.size if on_gpu else None),
            energy_joules=_added(before.energy_joules, energy if energy == energy else None),
            sessions=before.sessions + 1,
        )
        if self._world.leads:
            write_record(self._path, self._content(cost, step))
        return cost

    def _content(self, cost: Cost, step: int) -> dict[str, Any]:
        on_gpu = self._device.type == "cuda"
        name = torch.cuda.get_device_name(self._device) if on_gpu else "cpu"
        machine = {"device": name, "processes": self._world.size}
        return {"schema": SCHEMA, **self._identity.to_dict(), "step": step, **machine, **vars(cost)}


def _added(before: float | None, more: float | None) -> float | None:
    """The sum, unknown if a part is."""
    return None if before is None or more is None else round(before + more, 1)


def energy_joules(device: torch.device) -> float | None:
    """What a GPU has used since its driver was loaded; None where nothing counts it.

    Needs `nvidia-ml-py` (extra `energy`) and a GPU of Volta or later.
    """
    if device.type != "cuda":
        return None
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid.encode())
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
    except (pynvml.NVMLError, AttributeError):
        return None
