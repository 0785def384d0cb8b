"""Timing of several ways to do the same thing: interleaved, CPU time, the best of N rounds.

On shared machines only ratios mean something, and only of runs side by side: every round runs each
way once, so that a slow spell meets all of them.
"""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Timing:
    """Best times of one way, in seconds."""

    name: str
    cpu: float
    wall: float


def cpu_seconds() -> float:
    """CPU time of this process and of its children that have ended."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def interleave(
    ways: Mapping[str, Callable[[], Any]],
    *,
    rounds: int = 5,
    same: Callable[[Any, Any], None] | None = None,
    sync: Callable[[], None] = lambda: None,
) -> list[Timing]:
    """Time every way `rounds` times in turn.

    Args:
        ways: name → what to time; each returns its result.
        rounds: the best of these counts.
        same: called with the first way's result and another's; raises where they differ.
        sync: waits for the device, where there is one.

    Returns:
        One timing per way, in the order of `ways`.
    """
    best: dict[str, Timing] = {}
    for number in range(rounds):
        results = {}
        for name, way in ways.items():
            sync()
            cpu, wall = cpu_seconds(), time.perf_counter()
            results[name] = way()
            sync()
            cpu, wall = cpu_seconds() - cpu, time.perf_counter() - wall
            known = best.get(name, Timing(name, cpu, wall))
            best[name] = Timing(name, min(cpu, known.cpu), min(wall, known.wall))
        if same is not None and number == 0:
            first, *others = results.values()
            for other in others:
                same(first, other)
    return list(best.values())


def print_timings(title: str, timings: list[Timing], unit: int = 1, clock: str = "cpu") -> None:
    """A table of milliseconds per `unit`, with ratios to the first way, and the machine.

    `clock`: what ratios are of, `cpu`, or `wall` where a GPU works and the CPU only asks it to.
    """
    print(f"\n{title}")
    shown = {"cpu": "CPU ratio", "wall": "wall ratio"}[clock]
    print(f"{'':<34}{'CPU ms':>10}{'wall ms':>10}{shown:>12}")
    for timing in timings:
        own: float = getattr(timing, clock)
        ratio = getattr(timings[0], clock) / own if own else float("nan")
        cpu, wall = (1e3 * value / unit for value in (timing.cpu, timing.wall))
        print(f"{timing.name:<34}{cpu:>10.2f}{wall:>10.2f}{ratio:>11.2f}x")
    load = os.getloadavg()[0]
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f}"
    print(f"{machine}; best of interleaved runs")
