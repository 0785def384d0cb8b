"""CLIP's tokens of many texts, fast and without torch.

The same steps as open_clip's tokenizer (clean, lower case, split into words, byte-pair merges of
its own file), with the merges done by the library `tokenizers` and each distinct word looked at
once: a million captions take seconds.
"""

from __future__ import annotations

import functools
import gzip
import html
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import ftfy
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import regex
from numpy.typing import NDArray
from tokenizers.models import BPE

from discovla.errors import UserError
from discovla.storage.files import sha256_file

END = "</w>"
_MARKS = ("<start_of_text>", "<end_of_text>")
_N_MERGES = 49152 - 256 - 2
"""CLIP reads only so many lines of its merges file: vocabulary - bytes - marks. So 16 bits hold
every id."""
_WORD = regex.compile(
    "|".join(_MARKS) + r"|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)
#: Texts that `cleaned` would only lower and single the blanks of: printable ASCII without "&".
_PLAIN = r"^[ -%'-~]*$"
_CHUNK = 1 << 15

Texts: TypeAlias = "Sequence[str] | pa.Array"


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


class ClipTokenizer:
    """Token ids as CLIP's models take them.

    Args:
        merges: a gzipped merges file; None = CLIP's own.

    Raises:
        UserError: the file is absent or no merges file.
    """

    def __init__(self, merges: str | Path | None = None) -> None:
        self.path = Path(merges) if merges else clip_merges()
        try:
            with gzip.open(self.path, "rt", encoding="utf-8") as handle:
                lines = handle.read().split("\n")[1 : 1 + _N_MERGES]
            pairs = [(left, right) for left, right in (line.split() for line in lines if line)]
            letters = list(_LETTERS.values())
            symbols = [*letters, *(letter + END for letter in letters)]
            # An empty last line takes an id too, as it does in open_clip.
            symbols += ["".join(line.split()) for line in lines] + [*_MARKS]
            numbers = {symbol: number for number, symbol in enumerate(symbols)}
            self.start, self.end = (numbers[mark] for mark in _MARKS)
            self.vocab_size = len(numbers)
            known = {symbol: n for symbol, n in numbers.items() if symbol and symbol not in _MARKS}
            self._bpe = BPE(known, pairs, end_of_word_suffix=END)
        except Exception as error:  # tokenizers raises plain `Exception`s
            raise UserError(
                f"{self.path}: not a tokenizer file ({error}); a gzipped list of merges as CLIP's "
                "bpe_simple_vocab_16e6.txt.gz is expected"
            ) from None
        self._of_piece = functools.cache(self._piece)

    @functools.cached_property
    def digest(self) -> str:
        """sha256 of the merges file."""
        return sha256_file(self.path)

    def count(self, text: str) -> int:
        """Tokens of a text that `cleaned` made, the start and the end mark not among them."""
        return sum(len(self._of_piece(piece)) for piece in text.split(" "))

    def encode(self, texts: Texts, words: int) -> NDArray[np.uint16]:
        """Ids (n, words): start, up to words - 2 tokens, end, zeros."""
        array = texts if isinstance(texts, pa.Array) else pa.array(texts, pa.string())
        ids = np.zeros((len(array), words), np.uint16)
        for begin in range(0, len(array), _CHUNK):
            self._fill(ids[begin : begin + _CHUNK], array.slice(begin, _CHUNK))
        return ids

    def _fill(self, ids: NDArray[np.uint16], texts: pa.Array) -> None:
        """Put the tokens of a chunk of texts into its rows."""
        lists = pc.split_pattern(pc.ascii_lower(_readable(texts)), " ")
        encoded = lists.flatten().dictionary_encode()
        pieces = [self._of_piece(piece) for piece in encoded.dictionary.to_pylist()]
        sizes = np.array([len(piece) for piece in pieces], np.int32)
        heads = np.cumsum(sizes) - sizes
        vocabulary = np.fromiter((t for piece in pieces for t in piece), np.uint16, sizes.sum())

        offsets = lists.offsets.to_numpy()
        offsets = offsets - offsets[0]
        piece = encoded.indices.to_numpy()
        size = sizes[piece]
        before = np.concatenate([[0], np.cumsum(size)])
        first = before[offsets[:-1]]
        row = np.repeat(np.arange(len(ids), dtype=np.int32), np.diff(offsets))
        place = before[:-1] - first[row]
        room = ids.shape[1] - 2
        # Pieces beyond the room, most of a long text, are not looked at again.
        keep = place < room
        piece, size, place, row = piece[keep], size[keep], place[keep], row[keep]
        inside = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        column = np.repeat(place, size) + inside
        token = vocabulary[np.repeat(heads[piece], size) + inside]
        row = np.repeat(row, size)
        fits = column < room
        ids[row[fits], column[fits] + 1] = token[fits]

        lengths = np.minimum(before[offsets[1:]] - first, room)
        ids[:, 0] = self.start
        ids[np.arange(len(ids)), lengths + 1] = self.end

    def _piece(self, piece: str) -> tuple[int, ...]:
        """Ids of a piece of a cleaned text between two blanks; no word reaches beyond one."""
        return tuple(
            token.id
            for word in _WORD.findall(piece)
            # A mark that a caption spells out must not end the text early.
            if word not in _MARKS
            for token in self._bpe.tokenize("".join(_LETTERS[byte] for byte in word.encode()))
        )


def _readable(texts: pa.Array) -> pa.Array:
    """The texts, those that are not plain cleaned."""
    strange = pc.invert(pc.match_substring_regex(texts, _PLAIN))
    if not pc.any(strange).as_py():
        return texts
    mended = [cleaned(text) for text in texts.filter(strange).to_pylist()]
    return pc.replace_with_mask(texts, strange, pa.array(mended, texts.type))


def _byte_letters() -> dict[int, str]:
    """A printable letter for each byte: itself where it is one, else one from U+0100 on."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in own]
    moved = {byte: chr(256 + number) for number, byte in enumerate(others)}
    return {**{byte: chr(byte) for byte in own}, **moved}


#: In the order of the vocabulary.
_LETTERS = _byte_letters()
