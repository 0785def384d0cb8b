"""Where benchmarks run, and what they say of it, on a GPU that is made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import interleave, machine
from benchmarks.interleave import Timing, print_timings
from discovla import cards
from discovla.errors import UserError
from tests import fake_cuda as fake


class Clock:
    """Seconds that pass only where a device works."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.queued = 0.0
        self.waited = 0
        monkeypatch.setattr(interleave.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(torch.cuda, "synchronize", self.wait)

    def wait(self, device: Any = None) -> None:
        """All that was asked for is done."""
        self.now, self.queued = self.now + self.queued, 0.0
        self.waited += 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_rate_is_flops_over_the_time_until_the_device_is_done(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    """Naively: every product of two n x n matrices is 2 n^3 FLOP."""
    monkeypatch.setitem(machine.PRODUCTS, "cuda", (64, 5))
    seen: list[tuple[str, torch.dtype]] = []
    with fake.fake_cuda():
        clock = Clock(monkeypatch)

        def product(x: Tensor, y: Tensor) -> Tensor:
            seen.append((x.device.type, x.dtype))
            clock.queued += 0.5  # of the device; asking for it takes no time
            return x @ y

        rate = machine.matrix_rate("cuda", dtype, product, rounds=2)
    assert rate == 2 * 64**3 / 0.5
    assert set(seen) == {("cuda", dtype)}
    assert clock.waited == 4  # before and behind each round


def test_on_a_cpu_its_own_time_counts() -> None:
    assert machine.matrix_rate("cpu", torch.float32, rounds=1) > 0
    timing = Timing("a way", cpu=1.0, wall=2.0)
    assert machine.seconds(timing, "cpu") == 1.0
    assert machine.seconds(timing, "cuda:1") == 2.0
    assert machine.shown_gb(machine.peak_gb("cpu")) == "not measured"


def test_ratios_are_of_what_counts(capsys: pytest.CaptureFixture[str]) -> None:
    timings = [Timing("slow", cpu=1.0, wall=8.0), Timing("fast", cpu=2.0, wall=2.0)]
    print_timings("on a CPU", timings)
    print_timings("on a GPU", timings, clock="wall")
    cpu, gpu = (line for line in capsys.readouterr().out.splitlines() if line.startswith("fast"))
    assert cpu.endswith("0.50x")
    assert gpu.endswith("4.00x")


@pytest.mark.parametrize(("device", "number"), [("cuda", 0), ("cuda:1", 1)])
def test_a_gpu_is_made_the_current_one_and_tells_its_peak(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: str, number: int
) -> None:
    monkeypatch.setattr(cards, "_held", {})
    monkeypatch.setattr(cards.tempfile, "gettempdir", lambda: str(tmp_path))
    done: list[Any] = []
    with fake.fake_cuda():
        choose = torch.cuda.set_device
        monkeypatch.setattr(torch.cuda, "set_device", lambda d: done.append(choose(d)))
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: done.append("reset"))
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3e9)
        with machine.using(device):
            assert not torch.backends.cudnn.allow_tf32
            machine.forget_peak(device)
            assert machine.shown_gb(machine.peak_gb(device)) == "3.0"
    assert done == [number, "reset"]


def test_what_the_user_gave_wrong_ends_with_a_line() -> None:
    def work() -> None:
        with machine.using("cpu"):
            raise UserError("no such clone")

    with pytest.raises(SystemExit, match="no such clone"):
        work()


def test_rows_are_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    machine.print_rows(["s", "ratio"], {"released": ["2", "1.00x"], "  ours": ["1", "2.00x"]})
    assert capsys.readouterr().out.splitlines()[-4:] == [
        "| way | s | ratio |",
        "|---|---|---|",
        "| released | 2 | 1.00x |",
        "| ours | 1 | 2.00x |",
    ]
