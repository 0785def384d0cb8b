"""Training curves for TensorBoard, from curve.csv: the training itself needs no TensorBoard."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from discovla.errors import UserError

CURVE_NAME = "curve.csv"


def write_events(folders: Sequence[str | Path], output: str | Path) -> list[Path]:
    """Every column of every curve as a scalar, one TensorBoard run per folder.

    Args:
        folders: of trainings (…/runs/RUN/seed42), finished or running.
        output: log folder for `tensorboard --logdir`; events of an earlier call are replaced.

    Returns:
        The folders written.

    Raises:
        UserError: TensorBoard is not installed, or a curve is absent or damaged.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError(
            "TensorBoard is not installed: pip install tensorboard (the extra 'tensorboard'); the "
            f"same numbers stand in {CURVE_NAME}"
        ) from None
    written = []
    for folder in map(Path, folders):
        rows = _read(folder / CURVE_NAME)
        target = Path(output) / folder.resolve().parent.name / folder.resolve().name
        for old in target.glob("events.out.tfevents.*"):
            old.unlink()
        with SummaryWriter(str(target)) as writer:
            for row in rows:
                step = int(row.pop("step"))
                for name, value in row.items():
                    writer.add_scalar(name, value, step)
        written.append(target)
    return written


def _read(path: Path) -> list[dict[str, float]]:
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(handle)]
        if not rows or "step" not in rows[0]:
            raise ValueError("no steps")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; 'discovla train' writes it") from None
    except (TypeError, ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a training curve ({error})") from None
    return rows
