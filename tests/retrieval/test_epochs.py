"""Features of every checkpoint: which ones, and that each is its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from discovla.cli import main
from discovla.errors import UserError
from discovla.interruption import Terminated
from discovla.retrieval import epochs
from discovla.retrieval.epochs import checkpoints, extract_epochs
from discovla.retrieval.features import extract_features
from discovla.storage.tensors import read_tensors, save_tensors
from discovla.training.loop import train
from tests.training import world as worlds
from tests.training.world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    built = worlds.build(tmp_path_factory.mktemp("world"))
    # 20 pairs in batches of 4: 5 steps an epoch, so that 13 steps end within the third.
    folder = tmp_path_factory.mktemp("long")
    return built.with_settings(folder, method="lora", epochs=3, max_steps=13, alpha=0.0, beta=0.0)


@pytest.fixture(scope="module")
def trained(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train(world.config, output_dir=folder, **world.training())
    return folder


def test_checkpoints_are_the_epochs_and_the_last_step(trained: Path) -> None:
    found = dict(checkpoints(trained))
    assert list(found) == ["epoch1", "epoch2", "last"]
    assert found["last"] == trained / "adapter.safetensors"


def test_the_end_of_the_last_epoch_is_not_listed_twice(world: World, tmp_path: Path) -> None:
    shorter = world.with_settings(tmp_path / "w", method="lora", max_steps=10)
    train(shorter.config, output_dir=tmp_path, **shorter.training())
    assert (tmp_path / "checkpoints" / "epoch2.safetensors").exists()
    assert list(dict(checkpoints(tmp_path))) == ["epoch1", "last"]


def test_a_checkpoint_of_another_training_is_refused(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "copy")
    path = tmp_path / "copy" / "checkpoints" / "epoch1.safetensors"
    tensors, metadata = read_tensors(path, "")
    save_tensors(path, tensors, {**metadata, "seed": "9"})
    with pytest.raises(UserError, match=r"epoch1\.safetensors: of another training"):
        list(checkpoints(tmp_path / "copy"))


def test_a_folder_of_features_is_there_whole_or_not_at_all(
    world: World, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Snakemake takes a folder that is there for finished, also after both were killed."""
    output = tmp_path / "epochs"
    seen: list[bool] = []

    def stopped(*arguments: object, **options: object) -> None:
        seen.append(output.exists())
        if len(seen) == 2:
            raise Terminated
        Path(str(arguments[5])).touch()

    monkeypatch.setattr(epochs, "extract_features", stopped)
    arguments = (trained, ["test"], world.annotations, world.frames, output)
    with pytest.raises(Terminated):
        extract_epochs(world.config_path, *arguments)
    assert seen == [False, False]
    assert list(tmp_path.iterdir()) == []


def test_the_command_encodes_each_with_its_own_adapter(
    world: World, trained: Path, tmp_path: Path
) -> None:
    output = tmp_path / "epochs"
    arguments = ["--config", world.config_path, "--run-folder", trained, "--seed", 1]
    arguments += ["--annotations", world.annotations, "--frames", world.frames]
    arguments += ["--device", "cpu", "--output", output]
    assert main(["epochs", *map(str, arguments)]) == 0
    assert list(tmp_path.iterdir()) == [output]
    names = [f"{name}.test.safetensors" for name in ("epoch1", "epoch2", "last")]
    assert sorted(p.name for p in output.glob("*.safetensors")) == names
    single = tmp_path / "single.safetensors"
    adapter = trained / "checkpoints" / "epoch2.safetensors"
    extract_features(
        *(world.config_path, adapter, "test", world.annotations, world.frames, single),
        seed=1,
        device="cpu",
    )
    second, last = load_file(output / names[1]), load_file(output / names[2])
    np.testing.assert_array_equal(load_file(single)["text"], second["text"])
    assert (second["text"] != last["text"]).any()
    with safe_open(output / names[1], "numpy") as file:
        assert file.metadata()["selection"] == "epoch2"
        assert file.metadata()["step"] == "10"
