"""What there is to know of a dataset's captions before they are used: length, ties, script."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from discovla.data.annotations.base import SPLITS
from discovla.tokenizer import ClipTokenizer, cleaned

MARKS = 2
"""Tokens of a caption that are its start and end mark."""


@dataclass(frozen=True)
class Limit:
    """How many tokens of a caption a run reads."""

    words: int
    """Tokens, both marks included (the setting `words`)."""
    merges: str | None = None
    """Merges file of the backbone's tokenizer; None = CLIP's own."""


def caption_facts(table: pd.DataFrame, limits: Sequence[Limit]) -> dict[str, dict[str, Any]]:
    """Facts of the captions of every split.

    Args:
        table: canonical annotation rows.
        limits: of the runs to come; tokens are counted with the tokenizer of the first.

    Returns:
        Split → `captions`; `distinct` (for the model: case and white space folded), `non_ascii`,
        `without_words` (no token is left of them), `tokens` and `longest` (without marks), and
        `cut`: a list with the number of `captions` and `tokens` lost for each limit in `words`.
    """
    tokenizers = dict.fromkeys(limit.merges for limit in limits) or {None: None}
    first = next(iter(tokenizers))
    facts = {}
    for split in SPLITS:
        texts = table.loc[table["split"] == split, "caption"]
        if texts.empty:
            continue
        read = [cleaned(text) for text in texts]
        tokens = {merges: _counts(read, merges) for merges in tokenizers}
        facts[split] = {
            "captions": len(read),
            "distinct": len(set(read)),
            "non_ascii": sum(not text.isascii() for text in texts),
            "without_words": sum(n == 0 for n in tokens[first]),
            "tokens": sum(tokens[first]),
            "longest": max(tokens[first]),
            "cut": [_cut(tokens[limit.merges], limit.words) for limit in limits],
        }
    return facts


def token_counts(texts: Sequence[str], merges: str | None = None) -> list[int]:
    """Tokens of each text, marks not among them."""
    return _counts([cleaned(text) for text in texts], merges)


def _counts(texts: Sequence[str], merges: str | None) -> list[int]:
    count = _counter(merges).count
    return [count(text) for text in texts]


@functools.cache
def _counter(merges: str | None) -> ClipTokenizer:
    return ClipTokenizer(merges)


def _cut(tokens: Sequence[int], words: int) -> dict[str, int]:
    over = [n - (words - MARKS) for n in tokens if n > words - MARKS]
    return {"words": words, "captions": len(over), "tokens": sum(over)}
