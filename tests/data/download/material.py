"""What the tests of downloads share: content, patience, sources of their own server."""

from __future__ import annotations

import hashlib
import random
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

from discovla.data.download.sources import (
    Archive,
    Each,
    Many,
    Published,
    Source,
)
from discovla.data.download.transfer import CHUNK, Policy
from tests.data.download.server import Server

CONTENT = random.Random(0).randbytes(5 * CHUNK + 12345)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = Policy(connect=1.0, read=0.3, attempts=3, unreached=2, wait=0.001, longest_wait=0.01)
LARGEST = 10 * len(CONTENT)


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def one(server: Server, name: str, published: Published, *more: str) -> Source:
    ways = tuple(Each(server.url(f"{place}/{{name}}")) for place in (*more, ""))
    return Source(
        "it", "a test", "free", "msrvtt", files={name: published}, ways=ways, largest=LARGEST
    )


def zipped(members: dict[str, bytes], links: tuple[str, ...] = ()) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o120777 if name in links else 0o100644) << 16
            archive.writestr(info, content)
    return buffer.getvalue()


VIDEOS = {f"MSRVTT/videos/all/video{n}.mp4": bytes([n]) * 1000 for n in range(4)}


def packed(server: Server, **changes: object) -> Source:
    way = Archive(server.url("/V.zip"), Published())
    many = Many("video*.mp4", 4, "videos")
    whole = Source("it", "videos", "free", "msrvtt", many=many, ways=(way,), largest=LARGEST)
    return replace(whole, **changes)  # type: ignore[arg-type]
