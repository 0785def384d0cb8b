"""Long texts stay inside of a picture, whatever it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from discovla.report import captions, gallery, rank_changes, similarity
from discovla.report.pictures import drawing

LONG = "a man in a red shirt walks slowly along the street while two dogs play in the garden " * 3
FRAME = np.zeros((48, 64, 3), np.uint8)


def _captions(path: Path) -> None:
    shown = captions.ShownClip("a clip", LONG, [FRAME] * 2, [0.0, 1.0], [[LONG] * 2])
    captions._draw([shown], ["guided · llava"], path)


def _two_captions(path: Path) -> None:
    shown = captions.ShownClip("a clip", LONG, [FRAME] * 2, [0.0, 1.0], [[LONG] * 2] * 2)
    captions._draw([shown], ["guided · llava", "unguided · llava"], path)


def _similarity(path: Path) -> None:
    values = np.linspace(0, 1, 144, dtype=np.float32).reshape(12, 12)
    similarity._draw([(LONG, [FRAME] * 12, [LONG] * 12, values)], "a run, seed 0", path)


def _ranks(path: Path) -> None:
    ranks = {"rank_before": [300.0, 1.0] * 6, "rank_after": [1.0, 300.0] * 6}
    frame = pd.DataFrame({"caption": [LONG] * 12, **ranks}).sort_values("rank_after")
    frame["places_gained"] = frame["rank_before"] - frame["rank_after"]
    changes = rank_changes.RankChanges(
        "table5", "msrvtt", "DiscoVLA (as printed)", "B3 (IVFusion, AlignDistill)", (3, 3), frame
    )
    rank_changes.draw(changes, path)


def _gallery(path: Path) -> None:
    video = gallery.ShownVideo("clip", 1.0, 0.5, gallery.strip([FRAME] * 4))
    found = gallery.Retrieval("c", LONG, video, [video] * 3)
    run = "discovla-demo-clip-39285b6efd"
    gallery.draw_gallery(gallery.Gallery(run, "0", "demo", 300, [found], [found]), path)


DRAWN: list[tuple[ModuleType, Callable[[Path], None]]] = [
    (captions, _captions),
    (captions, _two_captions),
    (similarity, _similarity),
    (rank_changes, _ranks),
    (gallery, _gallery),
]


@pytest.mark.parametrize(("module", "draw"), DRAWN, ids=[draw.__name__[1:] for _, draw in DRAWN])
def test_no_text_leaves_the_picture(
    module: ModuleType,
    draw: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outside: list[str] = []

    @contextmanager
    def watched(*given: Any, **more: Any) -> Iterator[Any]:
        from matplotlib.text import Text

        with drawing(*given, **more) as figure:
            yield figure
            figure.canvas.draw()
            frame = figure.bbox
            for text in figure.findobj(Text):
                box = text.get_window_extent()
                if text.get_visible() and text.get_text() and box.x1 > frame.x1 + 1:
                    outside.append(f"{text.get_text()[:60]!r}: {box.x1:.0f} of {frame.x1:.0f}")

    monkeypatch.setattr(module, "drawing", watched)
    draw(tmp_path / "drawn.png")
    assert outside == []
