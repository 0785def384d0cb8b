"""What a captioner offers, and what counts as an answer."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from discovla.captioning.length import tokens_read

#: A run of words said again and again: one word four times, two to twenty words three times.
_LOOP = re.compile(r"(?<!\S)(?:(\S+)(?: \1){3}|(\S+(?: \S+){1,19}?)(?: \2){2})(?!\S)")
#: Times the longest answer that an unfinished one may have at its second try.
LONGER = 2


@dataclass(frozen=True)
class Caption:
    """One answer of a captioner."""

    text: str
    n_tokens: int | None
    """Tokens generated, the end mark not counted; None where the engine does not say."""
    finish_reason: str
    """`stop` = the model ended its answer; all else = it was cut off, at its `length` mostly."""


class Captioner(Protocol):
    """Anything that answers prompts about images."""

    def describe(self) -> dict[str, Any]:
        """What decides the answers: engine, model, revision, dtype, decoding (plain JSON)."""
        ...

    def caption(
        self,
        images: Sequence[NDArray[np.uint8]],
        prompts: Sequence[str],
        *,
        second_try: bool = False,
        longer: bool = False,
    ) -> list[Caption]:
        """Answer `prompts[i]` about `images[i]`, in this order.

        Args:
            images: uint8 RGB of shape (H, W, 3). The *same object* given for several prompts is
                encoded once.
            prompts: plain text, without the model's own conversation marks.
            second_try: decode so that an answer that came out empty or in a loop can change.
            longer: cut answers off only at `LONGER` times the usual length.
        """
        ...


def fault_of(text: str, finish_reason: str = "stop", read: int | None = None) -> str | None:
    """What is wrong with an answer: `empty`, `repeated`, `unfinished`, or None.

    Repeated means that the model ran into a loop, such as "a red a red a red"; unfinished, that it
    was cut off before CLIP had all the tokens of it that it reads.

    Args:
        text: the answer.
        finish_reason: `stop` = the model has ended it.
        read: CLIP's tokens that count; None = of the usual `discovla.captioning.length.WORDS`.
    """
    words = text.split()
    if not words:
        return "empty"
    if _LOOP.search(" ".join(words).lower()):
        return "repeated"
    wanted = tokens_read() if read is None else read
    if finish_reason != "stop" and _count_tokens()(text) < wanted:
        return "unfinished"
    return None


@functools.cache
def _count_tokens() -> Callable[[str], int]:
    # Only here: benchmarks of the captioner run where the tokenizer's packages are absent.
    from discovla.tokenizer import ClipTokenizer, cleaned

    tokenizer = ClipTokenizer()
    return lambda text: tokenizer.count(cleaned(text))
