"""Where a benchmark runs, a CPU or a GPU, and what counts there.

Needs torch only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.interleave import Timing, interleave
from discovla.devices import full_float32, resolve_device
from discovla.errors import UserError

PRODUCTS = {"cuda": (8192, 20), "cpu": (1024, 1)}
"""Edge of the matrices of which the rate is measured, and products in a row: on a GPU enough for
it to leave the clock that it idles at."""


@contextmanager
def using(device: str) -> Iterator[None]:
    """Whatever runs inside, on both sides, runs there, float32 without TF32 unless it says so.

    Among several GPUs `cuda` is one that no other process has taken: inside, the current one.

    Raises:
        SystemExit: torch sees no such device, or what the user gave is wrong.
    """
    try:
        if (found := resolve_device(device)).type == "cuda":
            torch.cuda.set_device(found)
        with full_float32():
            yield
    except UserError as error:
        raise SystemExit(str(error)) from None


@contextmanager
def replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """A name of a module means something else while the block runs."""
    kept = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, kept)


def seconds(timing: Timing, device: str) -> float:
    """What counts: the clock where a GPU works, else the CPU time."""
    return timing.wall if device.startswith("cuda") else timing.cpu


def waiting(device: str) -> Callable[[], None]:
    """What waits for the device."""
    return torch.cuda.synchronize if device.startswith("cuda") else (lambda: None)


def forget_peak(device: str) -> None:
    """Let go of unused memory and begin to look for the peak anew."""
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gb(device: str) -> float | None:
    """Most memory that tensors have taken since `forget_peak`; None where it is not measured."""
    return torch.cuda.max_memory_allocated() / 1e9 if device.startswith("cuda") else None


def shown_gb(peak: float | None) -> str:
    """For a table."""
    return "not measured" if peak is None else f"{peak:.1f}"


def device_name(device: str) -> str:
    """The GPU's name, or what vectors torch sees on the CPU."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    return f"CPU with {torch.backends.cpu.get_cpu_capability()}"


def matrix_rate(
    device: str,
    dtype: torch.dtype,
    product: Callable[[Tensor, Tensor], Tensor] = F.linear,
    rounds: int = 5,
) -> float:
    """Measured FLOP per second of large matrix products of a type, the best of some rounds."""
    edge, repeats = PRODUCTS["cuda" if device.startswith("cuda") else "cpu"]
    x, y = torch.randn(2, edge, edge, device=device).to(dtype).unbind()

    def work() -> None:
        for _ in range(repeats):
            product(x, y)

    (timing,) = interleave({"products": work}, rounds=rounds, sync=waiting(device))
    return 2 * edge**3 * repeats / seconds(timing, device)


def print_rows(columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> None:
    """A table as it stands in README.md: the columns behind the first, and the rows by name."""
    print("\nfor benchmarks/README.md:\n")
    print(f"| {' | '.join(['way', *columns])} |")
    print(f"|{'---|' * (len(columns) + 1)}")
    for name, values in rows.items():
        print(f"| {' | '.join([name.strip(), *values])} |")
