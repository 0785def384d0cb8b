"""Names of video files: which are videos, and what is left of a name without its suffixes."""

from __future__ import annotations

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
