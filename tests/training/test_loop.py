"""`train` on files: what it refuses, that workers do not matter, and death in its own process."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from discovla.cli import main
from discovla.errors import UserError
from discovla.training.checkpoint import load_run, read_adapter, read_run_config
from discovla.training.loop import train
from tests.training import world as worlds
from tests.training.test_trainer import same, weights
from tests.training.world import World

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return worlds.build(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def trained(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    torch.set_num_threads(1)
    train(world.config, output_dir=folder, **world.training())
    return folder


def test_adapter_opens_in_one_call(world: World, trained: Path) -> None:
    state, metadata = read_adapter(trained / "adapter.safetensors")
    assert metadata["run_id"] == worlds.RUN_ID
    assert (metadata["step"], metadata["selection"]) == ("10", "last")
    assert json.loads(metadata["excluded"]) == []
    assert "torch" in json.loads(metadata["versions"])["versions"]
    model = load_run(world.config_path, trained / "adapter.safetensors", "cpu")
    assert not model.training
    assert same(model.trainable_state(), state)
    fresh = load_run(world.config_path, trained / "checkpoints" / "epoch1.safetensors", "cpu")
    assert not same(fresh.trainable_state(), state)


def test_number_of_workers_changes_nothing(world: World, trained: Path, tmp_path: Path) -> None:
    train(world.config, output_dir=tmp_path, workers=2, **world.training())
    assert same(weights(tmp_path), weights(trained))


def test_recomputed_blocks_change_not_a_bit(world: World, trained: Path, tmp_path: Path) -> None:
    train(world.config, output_dir=tmp_path, recompute=True, **world.training())
    assert same(weights(tmp_path), weights(trained))


def test_frames_augmented_on_the_device(world: World, trained: Path, tmp_path: Path) -> None:
    there = world.with_settings(tmp_path / "there", method="discovla", augment_on="device")
    train(there.config, output_dir=tmp_path / "alone", **world.training())
    train(there.config, output_dir=tmp_path / "workers", workers=2, **world.training())
    found = weights(tmp_path / "alone")
    assert same(weights(tmp_path / "workers"), found)
    first = weights(trained)
    assert not same(found, first)
    one, other = (torch.cat([w[n].flatten() for n in first]) for w in (found, first))
    assert (one - other).norm() < 0.1 * other.norm()


def test_seed_changes_everything(world: World, trained: Path, tmp_path: Path) -> None:
    train(world.config, output_dir=tmp_path, **{**world.training(), "seed": 2})
    other, first = weights(tmp_path), weights(trained)
    assert not any(torch.equal(other[n], first[n]) for n in first if n.endswith(".a"))


def test_finished_training_is_left_alone(
    world: World, trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = (trained / "adapter.safetensors").stat().st_mtime_ns
    # Killed between its last two steps: the adapter was written, the state not yet removed.
    (trained / "state").mkdir()
    (trained / "state" / "state.safetensors").write_bytes(b"")
    with caplog.at_level(logging.INFO):
        train(world.config, output_dir=trained, **world.training())
    assert "nothing to train" in caplog.text
    assert (trained / "adapter.safetensors").stat().st_mtime_ns == before
    assert not (trained / "state").exists()
    with pytest.raises(UserError, match="seed"):
        train(world.config, output_dir=trained, **{**world.training(), "seed": 7})


def test_killed_process_goes_on_bit_identical(world: World, tmp_path: Path) -> None:
    """SIGKILL at no particular moment; enough steps that it cannot be over by then."""
    long = world.with_settings(tmp_path / "run", epochs=20)
    train(long.config, output_dir=tmp_path / "undisturbed", **long.training())
    killed = tmp_path / "killed"
    command = [
        *("train", "--config", str(long.config_path), "--annotations", str(long.annotations)),
        *("--frames", str(long.frames), "--captions", str(long.captions), "--seed", "1"),
        *("--device", "cpu", "--save-every", "1", "--output", str(killed)),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "discovla", *command],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 180
    while not (killed / "state" / "state.safetensors").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (killed / "adapter.safetensors").exists()
    assert main(command) == 0
    assert same(weights(killed), weights(tmp_path / "undisturbed"))


def test_failed_clips_stop_the_training_unless_allowed(tmp_path: Path) -> None:
    broken = worlds.build(tmp_path / "world", failed=(worlds.TRAIN[2],))
    with pytest.raises(UserError, match="have no frames"):
        train(broken.config, output_dir=tmp_path / "out", **broken.training())
    train(broken.config, output_dir=tmp_path / "out", allow_missing=True, **broken.training())
    _, metadata = read_adapter(tmp_path / "out" / "adapter.safetensors")
    assert json.loads(metadata["excluded"]) == [worlds.TRAIN[2]]


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({}, r"4 samples at a time.*--micro-batch 2 .*--recompute"),
        ({"micro_batch": 2, "recompute": True}, r"2 samples at a time.*--micro-batch 1 .*GPU"),
        ({"micro_batch": 1, "recompute": True}, r"1 sample at a time(?!.*--micro).*torchrun"),
    ],
)
def test_too_little_memory_is_told_with_what_helps(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    advice: str,
) -> None:
    def too_large(*args: Any, **others: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB. GPU 0 has 79.")

    monkeypatch.setattr("discovla.training.trainer.backward", too_large)
    with pytest.raises(UserError, match=r"cpu is too small \(CUDA out of memory\)") as found:
        train(world.config, output_dir=tmp_path, **{**world.training(), **options})
    assert re.search(advice, str(found.value)), found.value
    assert not (tmp_path / "adapter.safetensors").exists()


def test_full_fine_tuning_keeps_its_groups(world: World, tmp_path: Path) -> None:
    full = world.with_settings(tmp_path / "run", method="full", alpha=0, beta=0, epochs=1)
    train(full.config, output_dir=tmp_path / "out", **full.training())
    state, _ = read_adapter(tmp_path / "out" / "adapter.safetensors")
    assert state["clip.logit_scale"].item() <= torch.tensor(100.0).log().item()
    assert not any("token_embedding" in name for name in state)


def test_what_cannot_be_trained_is_refused(world: World, tmp_path: Path) -> None:
    arguments = {**world.training(), "output_dir": tmp_path / "out"}
    zero = world.with_settings(tmp_path / "zero", method="zero_shot", alpha=0, beta=0)
    with pytest.raises(UserError, match="trains nothing"):
        train(zero.config, **arguments)
    with pytest.raises(UserError, match="--captions"):
        train(world.config, **{**arguments, "captions": None})
    large = world.with_settings(tmp_path / "large", batch_size=21)
    with pytest.raises(UserError, match="20 training samples do not fill one batch of 21"):
        train(large.config, **arguments)
    other = {**world.config, "dataset": "elsewhere"}
    with pytest.raises(UserError, match="annotations of tiny"):
        train(other, **arguments)
    with pytest.raises(UserError, match="frames_id"):
        train({**world.config, "frames_id": "0" * 10}, **arguments)
    with pytest.raises(UserError, match="captions_id"):
        train({**world.config, "captions_id": "0" * 10}, **arguments)
    for device in ("gpu", "meta", "cuda:99"):
        with pytest.raises(UserError, match="device is"):
            train(world.config, **{**arguments, "device": device})
    with pytest.raises(UserError, match="seed -1"):
        train(world.config, **{**arguments, "seed": -1})
    few = world.with_settings(tmp_path / "few", frames=2)
    with pytest.raises(UserError, match="3 frames per clip"):
        train(few.config, **arguments)
    with pytest.raises(UserError, match="give 1 or more"):
        train(world.config, **arguments, save_every=0)
    assert not (tmp_path / "out").exists()


def test_adapters_fit_only_their_run(world: World, trained: Path, tmp_path: Path) -> None:
    adapter = trained / "adapter.safetensors"
    other = world.with_settings(tmp_path / "other", lora_rank=2)
    with pytest.raises(UserError, match="trained by run"):
        load_run(other.config_path, adapter, "cpu")
    narrow = world.with_settings(tmp_path / "narrow", lora_rank=2, run_id=worlds.RUN_ID)
    with pytest.raises(UserError, match="another shape") as caught:
        load_run(narrow.config_path, adapter, "cpu")
    assert str(adapter) in str(caught.value)
    with pytest.raises(UserError, match="--adapter"):
        load_run(world.config_path, None, "cpu")
    with pytest.raises(UserError, match="no such file"):
        load_run(world.config_path, tmp_path / "absent.safetensors", "cpu")
    (tmp_path / "cut.safetensors").write_bytes(adapter.read_bytes()[:50])
    with pytest.raises(UserError, match="damaged"):
        load_run(world.config_path, tmp_path / "cut.safetensors", "cpu")
    zero = world.with_settings(tmp_path / "zero", method="zero_shot", alpha=0, beta=0)
    with pytest.raises(UserError, match="leave --adapter out"):
        load_run(zero.config_path, adapter, "cpu")
    assert load_run(zero.config_path, None, "cpu").trainable_state() == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [("[]", "config.json is expected"), ("{}", "'schema' is absent"), ("{", "not valid JSON")],
)
def test_damaged_configs_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=message):
        read_run_config(tmp_path / "config.json")
