"""What pictures of frames and captions share: texts as they stand, the same bytes each time."""

from __future__ import annotations

import re
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from discovla.errors import UserError
from discovla.storage.files import atomic_path

FORMATS = (".svg", ".png")
#: Characters that XML cannot hold, whatever the escaping.
_UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_THUMBNAIL = (160, 120)
#: Colours that stay apart in every kind of colour vision (Okabe and Ito), and in grey. A second
#: sign (shape, hatching, words) always says the same.
NEARER, AWAY, UNCHANGED = "#0072b2", "#d55e00", "#6e6e6e"


def plain(text: str, width: int, lines: int = 6) -> str:
    """A text broken into lines of `width` letters; what does not fit ends with an ellipsis.

    matplotlib escapes what SVG would read as a tag; what no XML can hold becomes a question mark.
    """
    return "\n".join(
        textwrap.wrap(_UNPRINTABLE.sub("\ufffd", text), width, max_lines=lines, placeholder=" …")
    )


def thumbnail(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A frame, uint8 (H, W, 3), made small enough for a page."""
    picture = Image.fromarray(frame)
    picture.thumbnail(_THUMBNAIL, Image.Resampling.BICUBIC)
    return np.asarray(picture)


def evenly(count: int, total: int) -> list[int]:
    """`count` numbers of 0..total-1, spread evenly, first and last among them if two or more."""
    return sorted({round(x) for x in np.linspace(0, total - 1, min(count, total))})


def check_format(path: str | Path) -> None:
    """`UserError` unless the name ends with one of `FORMATS`."""
    if Path(path).suffix not in FORMATS:
        raise UserError(f"{path}: a picture's name ends with {' or '.join(FORMATS)}")


@contextmanager
def drawing(path: str | Path, size: tuple[float, float], dpi: int = 120) -> Iterator[Any]:
    """A matplotlib figure of `size` inches, written to `path` (`.svg` or `.png`) at the end.

    `dpi`: pixels per inch of a PNG, and of the frames in either.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    check_format(path)
    style = {
        "svg.hashsalt": "discovla",
        "svg.fonttype": "none",
        "font.size": 9,
        "text.parse_math": False,  # a caption's dollar is a dollar
    }
    with mpl.rc_context(style), warnings.catch_warnings():
        # A letter that the font lacks; a browser has it.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure = plt.figure(figsize=size, layout="constrained")
        try:
            yield figure
            _settle(figure)
            metadata = {"Date": None} if Path(path).suffix == ".svg" else {"Software": None}
            with atomic_path(path) as temporary:
                figure.savefig(temporary, metadata=metadata, dpi=dpi)
        finally:
            plt.close(figure)


def _settle(figure: Any) -> None:
    """Lay the figure out once and round where its axes lie.

    The solver of the constrained layout goes through its variables by their addresses, so the last
    digits of a position differ between runs, and with them the names that an SVG gives to clips.
    """
    if figure.axes:
        figure.get_layout_engine().execute(figure)
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position([round(number, 6) for number in axes.get_position().bounds])
