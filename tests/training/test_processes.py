"""`discovla train` in several processes: one result, one writer, and nobody left waiting."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from discovla.cli import main
from discovla.errors import UserError
from discovla.training.data import LoaderBatches
from discovla.training.processes import ALONE, World, joined
from tests.training import ranks
from tests.training import world as worlds
from tests.training.test_trainer import curve, same, weights
from tests.training.world import World as Files

EVERY = {"WORLD_SIZE": "4", "RANK": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return worlds.build(tmp_path_factory.mktemp("world"))


def command(files: Files, output: Path, *more: str) -> list[str]:
    return [
        *("train", "--config", str(files.config_path), "--annotations", str(files.annotations)),
        *("--frames", str(files.frames), "--captions", str(files.captions), "--seed", "1"),
        *("--device", "cpu", "--output", str(output), *more),
    ]


def test_two_processes_train_what_one_does(files: Files, tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    arguments = command(files, together, "--micro-batch", "1", "--log-every", "3")
    processes = ranks.start(2, ranks.command, arguments, tmp_path / "log")
    assert main(command(files, alone)) == 0
    for process in processes:
        process.join(120)
        assert process.exitcode == 0, (tmp_path / "log.0").read_text()
    assert {p.name for p in together.rglob("*")} == {p.name for p in alone.rglob("*")}
    rows = [[r["loss"] for r in curve(folder)] for folder in (alone, together)]
    assert rows[1] == pytest.approx(rows[0], rel=1e-4)
    one, other = weights(alone), weights(together)
    for name in one:
        torch.testing.assert_close(other[name], one[name], rtol=1e-2, atol=1e-3)
    said = [(tmp_path / f"log.{rank}").read_text() for rank in range(2)]
    assert "written after" in said[0]
    assert "written after" not in said[1]


def test_a_killed_process_ends_the_others_and_the_training_goes_on(
    files: Files, tmp_path: Path
) -> None:
    long = files.with_settings(tmp_path / "run", epochs=400)
    output = tmp_path / "out"
    arguments = command(long, output, "--save-every", "1")
    processes = ranks.start(2, ranks.command, arguments, tmp_path / "log")
    state = output / "state" / "state.safetensors"
    wait_until(state.exists)
    os.kill(processes[1].pid or 0, signal.SIGKILL)
    processes[0].join(60)
    assert processes[0].exitcode == 1
    said = (tmp_path / "log.0").read_text()
    assert "error: process 0 of 2: another process has ended or cannot be reached" in said
    assert not (output / "adapter.safetensors").exists()

    left = state.stat().st_mtime_ns
    processes = ranks.start(2, ranks.command, arguments, tmp_path / "again")
    wait_for_words("going on after step", tmp_path / "again.0")
    wait_until(lambda: state.stat().st_mtime_ns > left)  # both have taken a step
    os.kill(processes[1].pid or 0, signal.SIGTERM)  # one is asked to stop: both do, and save
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [130, 143]
    assert (output / "state" / "state.safetensors").exists()
    assert "stopped after step" in read(tmp_path / "again.0")

    (alone,) = ranks.start(1, ranks.command, arguments, tmp_path / "alone")  # takes up their state
    wait_for_words("going on after step", tmp_path / "alone.0")
    os.kill(alone.pid or 0, signal.SIGTERM)
    alone.join(60)
    assert alone.exitcode == 143


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def wait_for_words(words: str, log: Path) -> None:
    wait_until(lambda: words in read(log))


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_world_is_what_torchrun_says() -> None:
    assert World.from_environment({}) == ALONE
    assert World.from_environment({"WORLD_SIZE": "1"}) == ALONE
    assert World.from_environment(EVERY) == World(2, 4, 1)
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        fewer = {k: v for k, v in EVERY.items() if k != name}
        with pytest.raises(UserError, match=f"{name} is not set; start several processes"):
            World.from_environment(fewer)
    with pytest.raises(UserError, match="whole numbers"):
        World.from_environment({**EVERY, "RANK": "first"})
    with joined("cpu") as world:
        assert world == ALONE


def test_shares_make_up_the_batch() -> None:
    for size in (1, 2, 4, 8):
        rows = [list(range(8))[World(rank, size).share(8)] for rank in range(size)]
        assert [row for part in rows for row in part] == list(range(8))
    with pytest.raises(UserError, match="start 1, 2, 4, 8 of them"):
        World(0, 3).share(8)


def test_every_process_has_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    second = World(1, 2, 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [ALONE.device(name) for name in ("auto", "cuda:1")] == ["auto", "cuda:1"]
    assert [second.device(name) for name in ("auto", "cuda", "cpu")] == ["cuda:1", "cuda:1", "cpu"]
    with pytest.raises(UserError, match="give auto, cpu or cuda"):
        second.device("cuda:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="has no GPU"):
        second.device("cuda")


def test_loaders_share_one_order() -> None:
    class Numbers(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
        clip_ids = [str(n) for n in range(13)]  # noqa: RUF012

        def __len__(self) -> int:
            return len(self.clip_ids)

        def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
            return {"video_index": torch.tensor(key[1])}

    def served(world: World) -> torch.Tensor:
        batches = LoaderBatches(Numbers(), 4, seed=3, world=world)  # type: ignore[arg-type]
        return torch.stack([b["video_index"] for b in batches.epoch(2, 1)])

    whole = served(ALONE)
    assert whole.shape == (2, 4)
    for size in (2, 4):
        parts = [served(World(rank, size)) for rank in range(size)]
        assert torch.equal(torch.cat(parts, 1), whole)


def test_bad_micro_batch_is_refused(files: Files, tmp_path: Path) -> None:
    assert main(command(files, tmp_path / "out", "--micro-batch", "0")) == 1
    assert not (tmp_path / "out").exists()


def test_micro_batches_train_the_same(files: Files, tmp_path: Path) -> None:
    for name, more in {"whole": [], "parts": ["--micro-batch", "3"]}.items():
        assert main(command(files, tmp_path / name, *more)) == 0
    rows = [[r["loss"] for r in curve(tmp_path / name)] for name in ("whole", "parts")]
    assert rows[1] == pytest.approx(rows[0], rel=1e-4)
    assert not same(weights(tmp_path / "whole"), {})
