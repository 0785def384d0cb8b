from __future__ import annotations

from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from discovla.report.pictures import drawing

LAYOUT = ConstrainedLayoutEngine.execute


def drawn(path: Path, noise: float) -> bytes:
    """A picture whose layout came out otherwise in its last digits."""

    def execute(engine: ConstrainedLayoutEngine, figure: Figure) -> None:
        LAYOUT(engine, figure)
        for axes in figure.axes:
            left, low, width, height = axes.get_position().bounds
            axes.set_position((left, low + noise, width, height - noise))

    with (
        mock.patch.object(ConstrainedLayoutEngine, "execute", execute),
        drawing(path, (4, 3)) as figure,
    ):
        for axes in figure.subplots(2, 2).flat:
            axes.imshow(np.zeros((24, 40, 3), np.uint8))
            axes.set_title("frame")
    return path.read_bytes()


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_the_last_digits_of_a_layout_change_no_byte(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"picture{suffix}"
    assert drawn(path, 0) == drawn(path, 3e-13)
