"""Small datasets in the demo's format, for tests of the check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from discovla.data.annotations import get_reader
from discovla.storage.files import write_json


def clip(name: str, split: str = "train", captions: list[str] | None = None) -> dict[str, Any]:
    """An entry of annotations.json whose video is `{name}.mp4`."""
    words = captions or [f"caption of {name}"]
    return {"clip_id": name, "split": split, "file": f"{name}.mp4", "captions": words}


def dataset(root: Path, *clips: dict[str, Any]) -> Path:
    """Write annotations.json below `root`."""
    root.mkdir(parents=True, exist_ok=True)
    write_json(root / "annotations.json", {"clips": list(clips)})
    return root


def table_of(root: Path) -> Any:
    """The canonical rows of such a dataset."""
    return get_reader("demo").read(root, {})
