"""`discovla search`: find videos by a text or a video, or texts by a video."""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from discovla.cli import _options

if TYPE_CHECKING:
    from discovla.search.model import Encoder
    from discovla.search.store import Index

log = logging.getLogger(__name__)

DESCRIPTION = """\
Find the videos of an index that fit a text (or, with --like, a video) best: rank, cosine, the
moment that fits best, and the file. With --video, the other way round: the texts of a file, one a
line, or the captions in the index's manifest, that fit a video best.
"""
EXAMPLE = """\
example:
  discovla search videos.index "a man cuts onions"
  discovla search videos.index --like kitchen.mp4 --top 5 --json
  discovla search videos.index --video kitchen.mp4 --texts sentences.txt
"""


def add_parser(subparsers: Any) -> None:
    """Register `search`."""
    parser = subparsers.add_parser(
        "search",
        help="find videos of an index by text or video, or texts by video",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        mixed=True,
    )
    add = parser.add_argument
    add("index", type=Path, metavar="INDEX", help="what 'discovla index' made")
    add("text", nargs="?", metavar="TEXT", help="what the video shows")
    add("--like", type=Path, metavar="FILE", help="videos like this one")
    add("--video", type=Path, metavar="FILE", help="texts for this video")
    add("--texts", type=Path, metavar="FILE", help="texts, one a line; default: the captions")
    add("--by", default="video", choices=("video", "moment"), help="%(default)s")
    add("--top", type=int, default=10, metavar="N", help="how many; %(default)s")
    _options.device(parser)
    _options.timeout(parser, 300)
    add("--json", action="store_true", help="a list of objects on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Load the model, ask, print."""
    from discovla.search.vectors import lance

    lance()  # before torch is imported for nothing
    from discovla.errors import UserError
    from discovla.search.model import Encoder
    from discovla.search.query import search, text_vector, video_vector
    from discovla.search.store import Index

    if sum(item is not None for item in (args.text, args.like, args.video)) != 1:
        raise UserError("give one of: a text, --like FILE, --video FILE")
    if args.texts and not args.video:
        raise UserError("--texts belongs to --video")
    index = Index(args.index)
    encoder = Encoder(index.model, args.device)
    if args.video:
        return _texts(args, index, encoder)
    if args.like:
        query = video_vector(encoder, args.like, args.timeout)
    else:
        query = text_vector(encoder, args.text)
    begin = time.perf_counter()
    hits = search(index, query, args.top, args.by)
    log.info(
        "%s videos, %s: %.0f ms",
        *(f"{len(index.videos):,}", index.search_kind(), (time.perf_counter() - begin) * 1e3),
    )
    _print(args.json, hits)
    return 0


def _print(as_object: bool, hits: Any) -> None:
    from discovla.data.names import CONTROL
    from discovla.search.query import as_json, clock

    if as_object:
        print(json.dumps(as_json(hits), indent=1, ensure_ascii=False))
        return
    for hit in hits:
        # A name may hold signs that a terminal would obey.
        name = CONTROL.sub("?", hit.key)
        print(f"{hit.rank:4}  {hit.score:6.3f}  {clock(hit.start, hit.duration):>8}  {name}")


def _texts(args: argparse.Namespace, index: Index, encoder: Encoder) -> int:
    from discovla.data.annotations.sources import read_text
    from discovla.errors import UserError
    from discovla.search.query import captions_of, rank_texts, video_vector

    if args.texts:
        lines = [line.strip() for line in read_text(args.texts).splitlines()]
        texts = list(dict.fromkeys(line for line in lines if line))
        where = str(args.texts)
    else:
        texts, where = captions_of(index), f"{args.index}: made from a folder, it"
    if not texts:
        raise UserError(f"{where} has no texts; give --texts FILE with one a line")
    query = video_vector(encoder, args.video, args.timeout)
    found = rank_texts(query, texts, encoder.texts(texts), args.top)
    if args.json:
        rows = [
            {"rank": rank, "score": round(score, 6), "text": text}
            for rank, (score, text) in enumerate(found, 1)
        ]
        print(json.dumps(rows, indent=1, ensure_ascii=False))
    else:
        for rank, (score, text) in enumerate(found, 1):
            print(f"{rank:4}  {score:6.3f}  {text}")
    return 0
