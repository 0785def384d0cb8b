from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from discovla.captioning.fingerprint import folder_fingerprint
from discovla.errors import UserError

TENSORS = {
    "a.weight": np.arange(5000, dtype=np.float32).reshape(50, 100),
    "b.weight": np.ones((3, 4), np.float16),
    "empty": np.ones((0, 4), np.float32),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"model_type": "llava_next"}', encoding="utf-8")
    (tmp_path / "chat_template.jinja").write_text("{{ text }}", encoding="utf-8")
    (tmp_path / "README.md").write_text("a model", encoding="utf-8")
    save_file(TENSORS, tmp_path / "model.safetensors", {"format": "pt"})
    return tmp_path


def fingerprint(folder: Path) -> str:
    folder_fingerprint.cache_clear()
    return folder_fingerprint(folder)


def change_tensor(name: str, change: Callable[[np.ndarray], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors[name])
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    return apply


CHANGES: dict[str, Callable[[Path], object]] = {
    "a whole tensor": change_tensor("a.weight", lambda t: np.add(t, 1e-3, out=t)),
    "a small tensor": change_tensor("b.weight", lambda t: t.fill(2)),
    "the last row": change_tensor("a.weight", lambda t: t[-1].fill(0)),
    "the configuration": lambda f: (f / "config.json").write_text("{}", encoding="utf-8"),
    "the template": lambda f: (f / "chat_template.jinja").write_text("", encoding="utf-8"),
    "one file more": lambda f: (f / "tokenizer.json").write_text("{}", encoding="utf-8"),
    "a name": lambda f: (f / "model.safetensors").rename(f / "model-1.safetensors"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_content_is_another_model(folder: Path, name: str) -> None:
    before = fingerprint(folder)
    assert fingerprint(folder) == before
    CHANGES[name](folder)
    assert fingerprint(folder) != before


def test_what_changes_no_answer_changes_nothing(folder: Path, tmp_path: Path) -> None:
    before = fingerprint(folder)
    (folder / "README.md").write_text("the same model", encoding="utf-8")
    assert fingerprint(folder) == before
    assert fingerprint(folder.rename(tmp_path.parent / f"{tmp_path.name}-moved")) == before


@pytest.mark.parametrize("damage", [b"", b"\xff" * 20, (2).to_bytes(8, "little") + b"[]"])
def test_damaged_weights_are_named(folder: Path, damage: bytes) -> None:
    (folder / "model.safetensors").write_bytes(damage)
    with pytest.raises(UserError, match=r"model\.safetensors: no safetensors file"):
        fingerprint(folder)
