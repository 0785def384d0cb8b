"""What a training tells while it runs: its curve and a line of progress."""

from __future__ import annotations

import csv
import logging
import resource
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
from tqdm import tqdm

from discovla.storage.files import atomic_write

LOG = logging.getLogger(__name__)
LOG_SECONDS = 10.0
"""Time between two lines of progress where stderr is no terminal."""

Row = dict[str, float]


class Curve:
    """Rows of curve.csv: step, lr, loss, its terms, grad_norm, samples_per_second.

    Kept in memory (a row per step is little) and in the state, and rewritten whole: the file is
    never half a line, and what happens to it matters to no training.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = []

    def write(self) -> None:
        """Replace the file by all rows so far."""
        if not self.rows:
            return
        with atomic_write(self.path) as handle:
            writer = csv.DictWriter(handle, list(self.rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows({**row, "step": int(row["step"])} for row in self.rows)


class Progress:
    """A bar on a terminal, else a line of log every ten seconds; both with ETA and throughput."""

    def __init__(
        self, what: str, start: int, total: int, device: torch.device, shown: bool = True
    ) -> None:
        self._what, self._total, self._device, self._silent = what, total, device, not shown
        self._start, self._began = start, time.monotonic()
        self._shown = self._began
        self._bar = tqdm(
            desc=what,
            initial=start,
            total=total,
            unit="step",
            file=sys.stderr,
            disable=self._silent or not sys.stderr.isatty(),
        )

    def is_due(self) -> bool:
        """Whether something should be shown again, even if that waits for the device."""
        return not self._silent and time.monotonic() - self._shown >= LOG_SECONDS

    def update(self, step: int, row: Row) -> None:
        """Show that `step` steps are done; `row` is the last one of the curve."""
        if self._silent:
            return
        shown = {
            "loss": f"{row['loss']:.4g}",
            "lr": f"{row['lr']:.2e}",
            "samples/s": f"{row['samples_per_second']:.1f}",
            "memory": f"{max_memory(self._device) / 2**30:.2f} GiB",
        }
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(step - self._bar.n)
        if not (self.is_due() or step == self._total):
            return
        self._shown = now = time.monotonic()
        if self._bar.disable:
            seconds = (now - self._began) / max(1, step - self._start) * (self._total - step)
            numbers = ", ".join(f"{name} {value}" for name, value in shown.items())
            left = timedelta(seconds=round(seconds))
            LOG.info("%s: step %d/%d, %s, ETA %s", self._what, step, self._total, numbers, left)

    def close(self) -> None:
        """Leave the terminal in order."""
        self._bar.close()


def max_memory(device: torch.device) -> int:
    """Most bytes held so far: on the device, or resident in this process for the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
