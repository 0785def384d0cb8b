"""Decoding only what the wanted frames need, where the packets prove which frame is which.

All packets are read, none is decoded. If each holds exactly one whole picture with a time of its
own, and every key frame starts a group that neither needs nor shows anything of its neighbours,
the sorted times are the frame numbers. Then only the groups with wanted frames are decoded, up to
the last of them, without the pictures that nothing is predicted from. What comes out must be
exactly what went in. A file for which any of this does not hold is left to the plain reader.

One thing is not noticed: damage to the header of a picture that is not decoded, so small that its
packet still looks whole. The decoder would drop that picture; here it counts. The pictures and
times that are given are still true ones of the file.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av.error
import numpy as np

from discovla.data.decode.container import Painter, best_stream, frame_rate, open_video, seconds
from discovla.data.decode.packets import Picture, parser
from discovla.data.decode.request import Kept, Taken, Wish

LARGEST = 1 << 29
"""Bytes of packets held in memory; larger files are decoded in order."""


class UnprovenError(Exception):
    """The packets of a file do not tell which frame is which; the text says why."""


@dataclass(frozen=True)
class Index:
    """The packets of a file whose frame numbers are proved."""

    packets: list[Any]
    pictures: list[Picture]
    groups: list[range]
    """Packets of each group, in order of decoding."""
    times: list[int]
    """Time stamp of each frame number, strictly growing."""


def read_from_key_frames(wish: Wish[Kept]) -> Taken[Kept]:
    """Decode the groups of pictures that hold wanted frames.

    Raises:
        UnprovenError: this file must be decoded in order.
        DecodeError: there is no video stream.
        SamplingError: no frame lies in the segment.
    """
    with open_video(wish.path) as container:
        stream = best_stream(container, wish.path)
        fps = frame_rate(stream)
        index = prove(container, stream)
        limit = wish.limit(fps)
        n_frames = len(index.times) if limit is None else min(len(index.times), limit)
        indices = wish.choose(n_frames, fps)
        numbers = {index.times[number]: number for number in indices.tolist()}
        context = stream.codec_context
        size = (context.width, context.height)
        found: dict[int, tuple[Kept, float | None]] = {}
        painter = Painter()
        rotation = decoded = 0
        for frame in _decoded(context, index, set(numbers), size):
            decoded += 1
            if frame.pts in numbers:
                rotation = frame.rotation
                found[numbers[frame.pts]] = (
                    wish.keep(painter.paint(frame)),
                    seconds(frame, stream),
                )
    chosen = [found[number] for number in indices.tolist()]
    return Taken(
        kept=[kept for kept, _ in chosen],
        frame_index=indices,
        timestamp=np.array([time for _, time in chosen], dtype=np.float64),
        fps=fps,
        n_frames=n_frames,
        reader="pyav",
        rotation=rotation,
        note=f"from key frames: {decoded} of {len(index.times)} frames decoded",
    )


def prove(container: Any, stream: Any) -> Index:
    """Read all packets and find the groups.

    Raises:
        UnprovenError: something is not as it must be.
    """
    context = stream.codec_context
    look = parser(context.codec.canonical_name, context.extradata)
    if look is None:
        raise UnprovenError(f"packets of {context.codec.canonical_name} are not looked into")
    packets: list[Any] = []
    pictures: list[Picture] = []
    total = 0
    try:
        for packet in container.demux(stream):
            if not packet.size:
                continue
            total += packet.size
            _plain(packet, total)
            found = look(memoryview(packet))
            if found is None:
                raise UnprovenError(f"packet {len(packets)} is not one whole picture")
            packets.append(packet)
            pictures.append(found)
    except av.error.FFmpegError:
        raise UnprovenError("a packet cannot be read") from None
    groups = _groups(pictures)
    times = _times(packets, pictures, groups, context.reorder_depth)
    return Index(packets, pictures, groups, times)


def _plain(packet: Any, total: int) -> None:
    if total > LARGEST:
        raise UnprovenError(f"more than {LARGEST >> 20} MiB of video")
    if packet.is_discard:
        raise UnprovenError("an edit list hides frames")
    if packet.is_corrupt:
        raise UnprovenError("a packet is marked as damaged")
    if packet.pts is None:
        raise UnprovenError("a packet has no time stamp")
    if packet.has_sidedata("new_extradata"):
        raise UnprovenError("the codec's parameters change")


def _groups(pictures: list[Picture]) -> list[range]:
    if not pictures or not pictures[0].start:
        raise UnprovenError("the first picture is no key frame")
    starts = [number for number, found in enumerate(pictures) if found.start]
    if any(found.parameters and not found.start for found in pictures):
        raise UnprovenError("parameters change between key frames")
    if len({pictures[number].parameters for number in starts}) > 1:
        raise UnprovenError("some key frames bring parameters, others do not")
    ends = [*starts[1:], len(pictures)]
    return [range(start, end) for start, end in zip(starts, ends, strict=True)]


def _times(
    packets: list[Any], pictures: list[Picture], groups: list[range], depth: int
) -> list[int]:
    """Sorted time stamps of the shown frames, if the groups follow each other in time.

    `depth` is how many frames the decoder holds back to bring them in order; it drops what
    arrives later than that.
    """
    times: list[int] = []
    for group in groups:
        seen: list[int] = []
        for number in group:
            if not pictures[number].shown:
                continue
            time = packets[number].pts
            place = bisect.bisect_left(seen, time)
            if len(seen) - place > depth:
                raise UnprovenError("frames are reordered by more than the stream announces")
            seen.insert(place, time)
        if seen and (seen[0] != packets[group[0]].pts or (times and seen[0] <= times[-1])):
            raise UnprovenError("a group of pictures reaches into the one before it")
        times += seen
    if any(a == b for a, b in itertools.pairwise(times)):
        raise UnprovenError("two frames have the same time stamp")
    return times


def _decoded(context: Any, index: Index, wanted: set[int], size: tuple[int, int]) -> Iterator[Any]:
    """Frames of the groups with a wanted one; every group is checked against its packets."""
    # Decoders adapt to the encoder that the first packet names: they must see it in any case.
    for _ in _pictures(context, index.packets[:1]):
        pass
    for group in index.groups:
        here = [n for n in group if index.packets[n].pts in wanted and index.pictures[n].shown]
        if not here:
            continue
        last = max(index.packets[number].pts for number in here)
        stop = max(number for number in group if index.packets[number].pts <= last)
        fed = [
            number
            for number in range(group.start, stop + 1)
            if index.pictures[number].needed or index.packets[number].pts in wanted
        ]
        expected = sorted(index.packets[n].pts for n in fed if index.pictures[n].shown)
        came = []
        for frame in _pictures(context, [index.packets[number] for number in fed]):
            if frame.is_corrupt:
                raise UnprovenError("a damaged packet")
            if (frame.width, frame.height) != size:
                raise UnprovenError("the size of the picture changes")
            came.append(frame.pts)
            yield frame
        if came != expected:
            raise UnprovenError("other frames came out than the packets announce")


def _pictures(context: Any, packets: list[Any]) -> Iterator[Any]:
    """Feed packets, drain the decoder, and make it ready for the next group."""
    try:
        for packet in packets:
            yield from context.decode(packet)
        yield from context.decode(None)
    except av.error.FFmpegError:
        raise UnprovenError("a damaged packet") from None
    context.flush_buffers()
