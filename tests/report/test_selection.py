"""Choosing a checkpoint after the training: by which numbers, and how the choice is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from discovla.errors import UserError
from discovla.report.selection import (
    COLUMNS,
    build_selection,
    chosen_checkpoint,
    tell,
    write_selection,
)
from discovla.retrieval.evaluate import evaluate_features

STEPS = {"epoch1": 10, "epoch2": 20, "epoch10": 100, "last": 110}
NEARNESS = {
    # how near captions are to their videos, per checkpoint
    "val": {"epoch1": 0.1, "epoch2": 3.0, "epoch10": 3.0, "last": 0.1},
    "test": {"epoch1": 0.1, "epoch2": 0.3, "epoch10": 5.0, "last": 0.6},
}


def write(folder: Path, name: str, split: str, nearness: float, **changes: str) -> None:
    generator = np.random.default_rng(len(split))
    video, noise = generator.normal(size=(2, 40, 16))
    text = video * nearness + noise
    sides = {"text": text, "video": video}
    tensors = {
        n: (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
        for n, x in sides.items()
    }
    tensors |= {"truth": np.arange(40), "logit_scale": np.array(100, np.float32)}
    metadata = {"schema": "1", "run_id": "r", "seed": "0", "split": split, "data_id": "d"}
    metadata |= {"step": str(STEPS[name]), "selection": name, **changes}
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / f"{name}.{split}.safetensors", metadata=metadata)


def world(folder: Path, splits: tuple[str, ...] = ("val", "test")) -> Path:
    for split in splits:
        for name, nearness in NEARNESS[split].items():
            write(folder, name, split, nearness)
    return folder


def test_each_checkpoint_has_its_line_by_step(tmp_path: Path) -> None:
    frame = build_selection(world(tmp_path / "epochs"))
    assert list(frame) == COLUMNS
    assert dict(zip(frame["checkpoint"], frame["step"], strict=True)) == STEPS
    assert frame["step"].is_monotonic_increasing
    found = evaluate_features(tmp_path / "epochs" / "epoch2.test.safetensors")
    assert frame.loc[1, "test_v2t_MnR"] == found["v2t"]["MnR"]


def test_rules_choose_by_their_own_split_and_of_equals_the_earliest(tmp_path: Path) -> None:
    frame = build_selection(world(tmp_path / "epochs"))
    assert frame.loc[1, "val_t2v_R@sum"] == frame.loc[2, "val_t2v_R@sum"] == 300
    chosen = frame.set_index("checkpoint")["chosen_by"].dropna().to_dict()
    assert chosen == {"epoch2": "val_best", "epoch10": "test_best", "last": "last"}
    path = tmp_path / "selection.csv"
    write_selection(frame, path)
    assert chosen_checkpoint(path, "val_best") == "epoch2"
    assert chosen_checkpoint(path, "test_best") == "epoch10"


def test_one_checkpoint_can_be_chosen_by_all(tmp_path: Path) -> None:
    for split in ("val", "test"):
        write(tmp_path / "epochs", "last", split, 0.5)
    frame = build_selection(tmp_path / "epochs")
    assert frame["chosen_by"].tolist() == ["last val_best test_best"]
    assert "test_best - last: +0.0 (last, step 110" in tell(frame)


def test_the_gain_over_the_last_step_is_told(tmp_path: Path) -> None:
    frame = build_selection(world(tmp_path / "epochs"))
    last, best, val = (
        frame.set_index("checkpoint").loc[name, "test_t2v_R@sum"]
        for name in ("last", "epoch10", "epoch2")
    )
    lines = tell(frame).splitlines()
    assert lines[0] == f"last: step 110, test t2v R@sum {last:.1f}"
    assert f"val_best - last: {val - last:+.1f} (epoch2, step 20, {val:.1f})" in lines
    assert f"test_best - last: {best - last:+.1f} (epoch10, step 100, {best:.1f})" in lines
    assert val < last < best


def test_without_a_val_split_there_is_no_val_best(tmp_path: Path) -> None:
    frame = build_selection(world(tmp_path / "epochs", splits=("test",)))
    assert frame["val_t2v_R@sum"].isna().all()
    assert "val_best" not in tell(frame)
    path = tmp_path / "selection.csv"
    write_selection(frame, path)
    assert pd.read_csv(path)["val_t2v_R@1"].isna().all()
    with pytest.raises(UserError, match="no checkpoint for val_best; a val split is needed"):
        chosen_checkpoint(path, "val_best")


@pytest.mark.parametrize("key", ["run_id", "seed", "data_id", "train_data_id"])
def test_checkpoints_of_two_trainings_are_never_mixed(tmp_path: Path, key: str) -> None:
    """Such as those that a longer or an earlier training has left in the folder."""
    folder = world(tmp_path / "epochs")
    write(folder, "epoch2", "test", 0.3, **{key: "9"})
    with pytest.raises(UserError, match=r"epoch2\.test\.safetensors: of another training"):
        build_selection(folder)


def test_features_that_are_not_all_there_are_refused(tmp_path: Path) -> None:
    folder = world(tmp_path / "epochs")
    (folder / "epoch2.val.safetensors").unlink()
    with pytest.raises(UserError, match="epoch2 lacks a split"):
        build_selection(folder)
    for path in folder.glob("last.*"):
        path.unlink()
    with pytest.raises(UserError, match="no features of the last step"):
        build_selection(folder)
