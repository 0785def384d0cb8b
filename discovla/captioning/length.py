"""How much of a pseudo caption CLIP reads, and how long an answer has to be for that."""

from __future__ import annotations

#: Tokens of a text that CLIP gets, both marks included, unless a dataset has its own (App. A).
WORDS = 32


def tokens_read(words: int = WORDS) -> int:
    """CLIP's tokens of a pseudo caption that are read, where `words` tokens with both marks are."""
    return words - 2


def longest_answer(given: int | None, words: int) -> int:
    """Tokens of the longest answer of a captioner.

    Args:
        given: as the captioner's entry says; None = a third more than CLIP reads, since what CLIP
            says in 30 tokens takes LLaVA's tokenizer about 40.
        words: CLIP's tokens of a text, both marks included.
    """
    return given or -(-4 * tokens_read(words) // 3)
