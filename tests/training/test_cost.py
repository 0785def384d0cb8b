"""What a training has cost: summed over sessions, and silent about what is not known."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from discovla.storage.files import read_record
from discovla.training import cost as module
from discovla.training.cost import Cost, Meter, energy_joules
from discovla.training.processes import ALONE, World
from discovla.training.state import Identity
from tests.training.fake import IDENTITY, FakeBatches, trainer

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_sessions_add_up(tmp_path: Path, clock: list[float]) -> None:
    first = Meter(tmp_path, IDENTITY, CPU, ALONE)
    clock[0] += 50
    first.write(10)
    clock[0] += 50
    first.write(20)
    clock[0] += 7  # lost: killed before it was written
    second = Meter(tmp_path, IDENTITY, CPU, ALONE)
    second.resume(20)
    clock[0] += 30
    assert second.write(25) == Cost(130.0, None, None, 2)
    found = read_record(tmp_path / "cost.json")
    assert found == {
        **{"schema": 1, **IDENTITY.to_dict(), "step": 25, "device": "cpu", "processes": 1},
        **{"wall_seconds": 130.0, "gpu_seconds": None, "energy_joules": None, "sessions": 2},
    }


def test_a_training_from_the_start_and_another_one_count_anew(
    tmp_path: Path, clock: list[float]
) -> None:
    clock[0] += 1
    Meter(tmp_path, IDENTITY, CPU, ALONE).write(10)
    for identity, step in ((IDENTITY, 0), (Identity("other", 1, "d"), 10)):
        meter = Meter(tmp_path, identity, CPU, ALONE)
        meter.resume(step)
        clock[0] += 5
        assert meter.write(step).wall_seconds == 5
        Meter(tmp_path, IDENTITY, CPU, ALONE).write(10)


def test_gpu_hours_and_energy_where_they_are_known(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    energy = [500.0]
    monkeypatch.setattr(module, "energy_joules", lambda device: energy[0])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    monkeypatch.setattr(World, "gather", lambda self, tensor: tensor.repeat(self.size))
    meter = Meter(tmp_path, IDENTITY, torch.device("cuda:0"), World(size=2))
    clock[0] += 3600
    energy[0] += 3.6e6
    found = meter.write(10)
    assert found == Cost(3600, 7200, 7.2e6, 1)
    assert str(found) == "2.00 GPU hours, 1.00 wall hours, 2.00 kWh"
    assert read_record(tmp_path / "cost.json")["device"] == "Some GPU"


def test_a_cpu_tells_its_hours_only() -> None:
    assert str(Cost(1800, None, None, 1)) == "0.50 wall hours"
    assert energy_joules(CPU) is None


def test_the_drivers_counter_is_read_and_its_absence_is_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class NVMLError(Exception):
        pass

    def refuse(handle: object) -> int:
        raise NVMLError

    driver = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: 42_000 if handle == b"GPU-u" else 0,
    )
    device = torch.device("cuda:0")
    properties = SimpleNamespace(uuid="u")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    assert energy_joules(device) == 42.0
    driver.nvmlDeviceGetTotalEnergyConsumption = refuse
    assert energy_joules(device) is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert energy_joules(device) is None


def test_a_training_tells_once_and_writes_with_every_state(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    batches = FakeBatches(4)
    batches.interrupt_at = 3
    with pytest.raises(RuntimeError, match="plug"):
        trainer(tmp_path, batches, save_every=1).fit()
    assert read_record(tmp_path / "cost.json")["step"] == 3
    assert not [line for line in caplog.messages if "wall hours" in line]
    trainer(tmp_path, save_every=1).fit()
    found = read_record(tmp_path / "cost.json")
    assert (found["step"], found["sessions"]) == (6, 2)
    assert [line for line in caplog.messages if "wall hours" in line] == [
        f"{IDENTITY.run_id} seed 1: 0.00 wall hours"
    ]
