"""What one compressed packet holds, read from its first bytes without decoding it.

A packet is understood only if it holds exactly one picture and its lengths add up; anything else,
zeros over half a file for instance, is None, and the file is then decoded in full. Sources: ITU-T
H.264 §7.3-7.4, H.265 §7.3-7.4, RFC 6386 §9.1 (VP8), the VP9 bitstream specification §6.2 and
annex B, ISO/IEC 14496-2 §6.2.5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Picture(NamedTuple):
    """What a packet says about its picture."""

    start: bool
    """Nothing after it needs anything before it."""
    needed: bool = True
    """Other pictures may be predicted from it."""
    shown: bool = True
    parameters: bool = False
    """It brings parameter sets of its own."""


Parser = Callable[[memoryview], Picture | None]


def parser(codec: str, extradata: bytes | None) -> Parser | None:
    """How to look into the packets of a stream; None where nobody knows.

    Args:
        codec: FFmpeg's name of the codec.
        extradata: the codec's configuration record of the container.
    """
    if codec in _PLAIN:
        return _PLAIN[codec]
    # Version 1 of avcC and hvcC: units with their length in front, not start codes.
    if codec == "h264" and extradata and len(extradata) >= 7 and extradata[0] == 1:
        width = (extradata[4] & 3) + 1
        return lambda data: h264(data, width)
    if codec == "hevc" and extradata and len(extradata) >= 23 and extradata[0] == 1:
        width = (extradata[21] & 3) + 1
        return lambda data: hevc(data, width)
    return None


def h264(data: memoryview, width: int) -> Picture | None:
    """One access unit of H.264; `width` bytes give the length of each unit."""
    at, end, pictures = 0, len(data), 0
    start = needed = parameters = False
    while at < end:
        size = int.from_bytes(data[at : at + width], "big")
        at += width
        if size < 2 or at + size > end or data[at] & 0x80:
            return None
        kind = data[at] & 0x1F
        if kind in (1, 5):
            pictures += data[at + 1] >> 7  # first_mb_in_slice = 0
            start |= kind == 5
            needed |= bool(data[at] & 0x60)
        elif kind in (7, 8):
            parameters = True
        elif kind not in (6, 9, 12):  # messages, delimiters, filler
            return None
        at += size
    return Picture(start, needed, True, parameters) if pictures == 1 else None


def hevc(data: memoryview, width: int) -> Picture | None:
    """One access unit of HEVC; starts are IDR pictures."""
    at, end, pictures = 0, len(data), 0
    start = parameters = False
    while at < end:
        size = int.from_bytes(data[at : at + width], "big")
        at += width
        if size < 3 or at + size > end or data[at] & 0x80:
            return None
        kind, layer = data[at] >> 1, (data[at] & 1) << 5 | data[at + 1] >> 3
        if layer:
            return None
        if kind <= 9 or 16 <= kind <= 21:
            pictures += data[at + 2] >> 7  # first_slice_segment_in_pic_flag
            start |= kind in (19, 20)
        elif kind in (32, 33, 34):
            parameters = True
        elif kind not in (35, 38, 39, 40):
            return None
        at += size
    return Picture(start, True, True, parameters) if pictures == 1 else None


def mpeg4(data: memoryview) -> Picture | None:
    """One picture of MPEG-4 part 2 (XVID, DivX), in a stream without B-pictures.

    A picture of a few bytes may say that it is not coded, which shows nothing.
    """
    whole = bytes(data)
    at = whole.find(b"\x00\x00\x01\xb6")
    if at < 0 or whole.find(b"\x00\x00\x01\xb6", at + 4) >= 0 or len(whole) - at < 20:
        return None
    kind = whole[at + 4] >> 6
    return Picture(kind == 0) if kind <= 1 else None


def vp8(data: memoryview) -> Picture | None:
    """One frame of VP8."""
    if len(data) < 4:
        return None
    tag = int.from_bytes(data[:3], "little")
    key = not tag & 1
    header = 10 if key else 3
    if (tag >> 1 & 7) > 3 or header + (tag >> 5) > len(data):
        return None
    if key and bytes(data[3:6]) != b"\x9d\x01\x2a":
        return None
    return Picture(key, shown=bool(tag >> 4 & 1))


def vp9(data: memoryview) -> Picture | None:
    """One frame of VP9 or several in a superframe, one of them shown."""
    parts = _superframe(data)
    headers = [_vp9_header(part) for part in parts or ()]
    known = [header for header in headers if header is not None]
    if not parts or len(known) != len(parts) or sum(shown for _, shown in known) != 1:
        return None
    return Picture(known[0][0])


def _superframe(data: memoryview) -> list[memoryview] | None:
    """The frames of a packet; None if their lengths do not fit."""
    if not len(data):
        return None
    last = data[-1]
    count, width = (last & 7) + 1, (last >> 3 & 3) + 1
    index = 2 + count * width
    if last & 0xE0 != 0xC0 or len(data) < index or data[-index] != last:
        return [data]
    parts, at = [], 0
    for place in range(len(data) - index + 1, len(data) - 1, width):
        size = int.from_bytes(data[place : place + width], "little")
        parts.append(data[at : at + size])
        at += size
    return parts if at <= len(data) - index and all(map(len, parts)) else None


def _vp9_header(data: memoryview) -> tuple[bool, bool] | None:
    """(key frame, shown) of one frame."""
    first = data[0]
    if first >> 6 != 2 or first & 0x30 == 0x30:  # the marker; profile 3 has one more bit
        return None
    if first & 8:  # an earlier frame, shown now
        return False, True
    key = not first & 4
    if key and bytes(data[1:4]) != b"\x49\x83\x42":
        return None
    return key, bool(first & 2)


_PLAIN: dict[str, Parser] = {"mpeg4": mpeg4, "vp8": vp8, "vp9": vp9}
