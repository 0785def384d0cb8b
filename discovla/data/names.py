"""Names of video files: which are videos, and what is left of a name without its suffixes."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath, PureWindowsPath

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""Characters that no id and no path needs, and that a terminal obeys."""
VIDEO_SUFFIXES = (
    # In order of preference where a video exists twice: fewer surprises when decoded come first.
    ".mp4",
    ".m4v",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
    ".qt",
    ".mpg",
    ".mpeg",
    ".m2ts",
    ".mts",
    ".ts",
    ".wmv",
    ".asf",
    ".flv",
    ".divx",
    ".ogv",
    ".3gp",
    ".3g2",
    ".3gpp",
    ".null",  # of one video of DiDeMo
)


def split_name(name: str) -> tuple[str, str]:
    """Stem and lower-case outermost suffix of a file name; suffix "" if it is no video's.

    All known suffixes and final dots go, so that `x.mov`, `x.mov.mp4` and `x..mp4` have the stem
    `x`. Other dots stay: LSMDC's ids are full of them.
    """
    outermost = ""
    while True:
        stem, dot, last = name.rpartition(".")
        suffix = (dot + last).lower()
        if not stem or suffix not in (".", *VIDEO_SUFFIXES):
            return name, outermost
        outermost = outermost or suffix
        name = stem


def stem_of(name: str) -> str:
    """`split_name(name)[0]`."""
    return split_name(name)[0]


def same_text(name: str) -> str:
    """One form (NFC) for names that read the same: file systems store `é` as one sign or two."""
    return unicodedata.normalize("NFC", name)


def inner_path(text: str) -> tuple[str, str]:
    """A path below some root in its shortest form, and what is wrong with it ("" if nothing).

    Folders are parted by `/`. Nothing is looked up: a link that leads elsewhere is not seen here.
    """
    path = PurePosixPath(text)
    problem = ""
    if not path.parts or not text.strip():
        problem = "is empty"
    elif CONTROL.search(text):
        problem = "has a control character"
    elif path.is_absolute() or PureWindowsPath(text).is_absolute():
        problem = "is absolute"
    elif ".." in path.parts:
        problem = "goes up with '..'"
    elif "\\" in text:
        problem = "has a backslash; folders are parted by '/'"
    elif any(part.startswith(".") for part in path.parts):
        problem = "has a part that begins with a dot, and hidden files are not looked at"
    return path.as_posix(), problem
