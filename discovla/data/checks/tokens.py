"""How many tokens CLIP's tokenizer makes of a text, without a model and without torch.

The same steps as open_clip's tokenizer (clean, lower case, split into words, byte-pair merges of
its own file), with the merges done by the library `tokenizers`: 180,000 captions take seconds.
"""

from __future__ import annotations

import functools
import gzip
import html
import importlib.util
from pathlib import Path

import ftfy
import regex
from tokenizers.models import BPE

from discovla.errors import UserError

END = "</w>"
_MARKS = ("<start_of_text>", "<end_of_text>")
_N_MERGES = 49152 - 256 - 2
"""CLIP reads only so many lines of its merges file: vocabulary - bytes - marks."""
_WORD = regex.compile(
    "|".join(_MARKS) + r"|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)


def clip_merges() -> Path:
    """The merges file that open_clip ships, found without importing it."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("open_clip is not installed; install it with 'make setup'")
    return Path(spec.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"


def cleaned(text: str) -> str:
    """The text as CLIP reads it: repaired Unicode, no HTML entities, single blanks, lower case."""
    if not (text.isascii() and text.isprintable()) or "&" in text:
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


class TokenCounter:
    """Counts a text's tokens, the start and the end mark not among them.

    Args:
        merges: a gzipped merges file; None = CLIP's own.

    Raises:
        UserError: the file is absent or no merges file.
    """

    def __init__(self, merges: str | Path | None = None) -> None:
        path = Path(merges) if merges else clip_merges()
        try:
            with gzip.open(path, "rt", encoding="utf-8") as handle:
                lines = handle.read().split("\n")[1 : 1 + _N_MERGES]
            pairs = [(left, right) for left, right in (line.split() for line in lines if line)]
            symbols = [*_LETTERS, *(letter + END for letter in _LETTERS)]
            symbols += [left + right for left, right in pairs]
            vocabulary = {symbol: number for number, symbol in enumerate(dict.fromkeys(symbols))}
            self._bpe = BPE(vocabulary, pairs, end_of_word_suffix=END)
        except Exception as error:  # tokenizers raises plain `Exception`s
            raise UserError(
                f"{path}: not a tokenizer file ({error}); a gzipped list of merges as CLIP's "
                "bpe_simple_vocab_16e6.txt.gz is expected"
            ) from None
        self._count_word = functools.cache(self._word)

    def count(self, text: str) -> int:
        """Tokens of a text that `cleaned` made."""
        return sum(map(self._count_word, _WORD.findall(text)))

    def _word(self, word: str) -> int:
        if word in _MARKS:
            return 0  # the model's tokenizer drops a mark that a caption spells out
        return len(self._bpe.tokenize("".join(_LETTERS[byte] for byte in word.encode())))


def _byte_letters() -> list[str]:
    """A printable letter for each byte: itself where it is one, else one from U+0100 on."""
    own = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in own)
    moved = {byte: chr(256 + number) for number, byte in enumerate(others)}
    return [moved.get(byte, chr(byte)) for byte in range(256)]


_LETTERS = _byte_letters()
