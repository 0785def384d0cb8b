"""Curves handed to TensorBoard, which need not be installed: a stand-in takes what it is given."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from discovla.cli import main
from discovla.errors import UserError
from discovla.report.tensorboard import write_events

CURVE = "step,lr,loss\n1,0.0,2.5\n2,0.001,2.25\n"


class Recorder:
    written: dict[str, list[tuple[str, float, int]]]

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.written[folder] = []
        Path(folder).mkdir(parents=True, exist_ok=True)
        number = len(list(Path(folder).iterdir()))
        (Path(folder) / f"events.out.tfevents.{number}").touch()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.written[self.folder].append((name, value, step))


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    Recorder.written = {}
    module: Any = SimpleNamespace(SummaryWriter=Recorder)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return Recorder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "lora-x" / "seed0"
    folder.mkdir(parents=True)
    (folder / "curve.csv").write_text(CURVE)
    return folder


def test_every_column_is_a_scalar(recorder: type[Recorder], folder: Path, tmp_path: Path) -> None:
    for _ in range(2):  # the second call replaces what the first has written
        assert main(["tensorboard", str(folder), "--output", str(tmp_path / "logs")]) == 0
    target = tmp_path / "logs" / "lora-x" / "seed0"
    assert len(list(target.iterdir())) == 1
    assert recorder.written == {
        str(target): [("lr", 0.0, 1), ("loss", 2.5, 1), ("lr", 0.001, 2), ("loss", 2.25, 2)]
    }


@pytest.mark.usefixtures("recorder")
@pytest.mark.parametrize("content", [b"", b"step,lr\n1\n", b"lr\n1\n", b"step,lr\nx,1\n", b"\xff"])
def test_what_is_no_curve_is_named(folder: Path, tmp_path: Path, content: bytes) -> None:
    (folder / "curve.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"curve\.csv: not a training curve"):
        write_events([folder], tmp_path / "logs")
    with pytest.raises(UserError, match=r"curve\.csv: no such file"):
        write_events([tmp_path / "nowhere"], tmp_path / "logs")


def test_without_tensorboard_the_message_says_what_to_do(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match="pip install tensorboard"):
        write_events([folder], tmp_path / "logs")
