"""Pictures and files inside a page, as `data:` addresses."""

from __future__ import annotations

import base64
import io
import mimetypes
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_QUALITY = 82


def address(content: bytes, kind: str) -> str:
    """A `data:` address of some bytes."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def file_address(path: str | Path) -> str:
    """A `data:` address of a file, its kind by its suffix."""
    path = Path(path)
    return address(path.read_bytes(), mimetypes.guess_type(path.name)[0] or "text/plain")


def text_address(text: str, kind: str = "text/csv") -> str:
    """A `data:` address of a text."""
    return address(text.encode("utf-8"), f"{kind};charset=utf-8")


def frame_address(frame: NDArray[np.uint8]) -> str:
    """A JPEG of uint8 (H, W, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=_QUALITY, optimize=True, subsampling=0)
    return address(buffer.getvalue(), "image/jpeg")


def drawn(draw: Callable[[Path], None]) -> str:
    """The SVG that a function draws into a path."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "drawn.svg"
        draw(path)
        return file_address(path)
