"""Features of every checkpoint of a training, so that one can be chosen after it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from discovla.errors import UserError
from discovla.retrieval.features import extract_features
from discovla.storage.folders import replaced_folder
from discovla.training.checkpoint import read_adapter
from discovla.training.trainer import ADAPTER_NAME, CHECKPOINTS

LAST = "last"
CONTENTS = ("*.safetensors", "*.parquet")
"""Files of a folder of `extract_epochs`."""


def checkpoints(folder: str | Path) -> Iterator[tuple[str, Path]]:
    """Names and files of the states that a training (…/seed{s}) has kept, by step.

    The end of the last epoch is left out where the training ended there: it is `last`.

    Raises:
        UserError: no finished training, or one without checkpoints.
    """
    last = Path(folder) / ADAPTER_NAME
    _, metadata = read_adapter(last)
    files = {
        int(match[1]): path
        for path in (Path(folder) / CHECKPOINTS).glob("*.safetensors")
        if (match := re.fullmatch(r"epoch(\d+)", path.stem))
    }
    for epoch, path in sorted(files.items()):
        _, own = read_adapter(path)
        if any(own[key] != metadata[key] for key in ("run_id", "seed", "data_id")):
            raise UserError(f"{path}: of another training than {last}; remove it")
        if own["step"] != metadata["step"]:
            yield f"epoch{epoch}", path
    yield LAST, last


def extract_epochs(
    config_path: str | Path,
    folder: str | Path,
    splits: Sequence[str],
    annotations: str | Path,
    frames_dir: str | Path,
    output: str | Path,
    **options: Any,
) -> list[str]:
    """Encode splits with every checkpoint, in one process: `{checkpoint}.{split}.safetensors`.

    Args:
        config_path: the run's config.json.
        folder: of the finished training (…/seed{s}).
        splits: some of `test` and `val`.
        annotations: the canonical annotations.
        frames_dir: folder of the frame store.
        output: the folder to write; it appears when all of its files are there.
        options: of `extract_features`.

    Returns:
        The names of the checkpoints.
    """
    names = []
    with replaced_folder(output, CONTENTS) as fresh:
        for name, adapter in checkpoints(folder):
            for split in splits:
                target = fresh / f"{name}.{split}.safetensors"
                extract_features(
                    config_path, adapter, split, annotations, frames_dir, target, **options
                )
            names.append(name)
    return names
