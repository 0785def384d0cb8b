"""A byte-pair vocabulary learnt from captions, in the file format of CLIP's tokenizer.

Algorithm: Sennrich et al., 2016 (arXiv:1508.07909). The result is read by
`open_clip.tokenizer.SimpleTokenizer(bpe_path=…)`.
"""

from __future__ import annotations

import gzip
import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from discovla.storage.files import atomic_write

_PIECES = re.compile(r"[a-z]+|[0-9]|[^\sa-z0-9]+")


def learn_merges(texts: Iterable[str], limit: int = 1000) -> list[tuple[str, str]]:
    """Merges in order, until every word seen is one token or `limit` is reached.

    Equally frequent pairs merge in alphabetic order, so equal texts give equal merges.
    """
    counts = Counter(word for text in texts for word in _PIECES.findall(text.lower()))
    words = {tuple(word[:-1]) + (word[-1] + "</w>",): n for word, n in counts.items()}
    merges: list[tuple[str, str]] = []
    while len(merges) < limit:
        pairs: Counter[tuple[str, str]] = Counter()
        for pieces, n in words.items():
            for pair in pairwise(pieces):
                pairs[pair] += n
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = {_merge(pieces, best): n for pieces, n in words.items()}
    return merges


def _merge(pieces: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged: list[str] = []
    for piece in pieces:
        # After "a"+"b" has become "ab", a following "b" must not merge again: compare raw pieces.
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return tuple(merged)


def write_merges(path: Path, merges: list[tuple[str, str]]) -> None:
    """Write CLIP's format: gzip, a header line, one merge per line, no newline at the end.

    A trailing newline would become an empty merge, that is, one more token.
    """
    text = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)])
    with atomic_write(path, "wb") as handle:
        handle.write(gzip.compress(text.encode(), mtime=0))


def vocabulary_size(merges: list[tuple[str, str]]) -> int:
    """256 bytes with and without end-of-word mark, the merges, start and end of text."""
    return 512 + len(merges) + 2
