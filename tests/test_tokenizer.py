from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from open_clip.tokenizer import SimpleTokenizer

from discovla.data.annotations import get_reader
from discovla.demo import weights as clip_weights
from discovla.errors import UserError
from discovla.storage.files import read_json
from discovla.tokenizer import ClipTokenizer, cleaned, clip_merges

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
PIECES = st.sampled_from(
    ["a dog", " ", "  ", "\n", "don't", "I'LL", "&amp;", "&amp;lt;", "42", "«é»", "naïve", "日本",
     "<start_of_text>", "<END_OF_TEXT>", "...!?", "playing-guitar", "\u200b", "ﬁ", "’s", "İ", "'ſ"]
)  # fmt: skip


@pytest.fixture(scope="module")
def theirs() -> SimpleTokenizer:
    return SimpleTokenizer()


@pytest.fixture(scope="module")
def ours() -> ClipTokenizer:
    return ClipTokenizer()


def rows_of(theirs: SimpleTokenizer, texts: list[str], words: int) -> np.ndarray:
    """Start, words, end, zeros, text by text; marks that a text spells out are left out."""
    rows = np.zeros((len(texts), words), np.int64)
    for row, text in zip(rows, texts, strict=True):
        body = [t for t in theirs.encode(text) if t not in theirs.all_special_ids][: words - 2]
        row[: len(body) + 2] = [theirs.sot_token_id, *body, theirs.eot_token_id]
    return rows


@given(TEXT | st.lists(PIECES, max_size=12).map("".join))
def test_counts_are_those_of_open_clip(
    ours: ClipTokenizer, theirs: SimpleTokenizer, text: str
) -> None:
    expected = sum(token not in theirs.all_special_ids for token in theirs.encode(text))
    assert ours.count(cleaned(text)) == expected


@given(
    st.lists(TEXT | st.lists(PIECES, max_size=12).map("".join), max_size=6),
    st.integers(3, 20),
    st.integers(1, 4),
)
def test_ids_are_those_of_open_clip(
    ours: ClipTokenizer, theirs: SimpleTokenizer, texts: list[str], words: int, chunk: int
) -> None:
    expected = rows_of(theirs, texts, words)
    with mock.patch("discovla.tokenizer._CHUNK", chunk):
        assert np.array_equal(ours.encode(texts, words), expected)
    beyond = pa.array(["something before", *texts]).slice(1)
    assert np.array_equal(ours.encode(beyond, words), expected)


@given(TEXT | st.lists(PIECES, max_size=12).map("".join))
def test_cleaned_text_is_that_of_open_clip(text: str) -> None:
    from open_clip.tokenizer import _clean_lower

    assert cleaned(text) == _clean_lower(text)


@pytest.mark.parametrize("words", [32, 64])
def test_real_paragraphs(
    shared: Callable[[str], Path], ours: ClipTokenizer, theirs: SimpleTokenizer, words: int
) -> None:
    root = shared("datasets/activitynet/val_1.json").parent
    table = get_reader("activitynet").read(root, {"paragraph_order": "file"})
    strange = [text for text in table["caption"] if not text.isascii()]
    assert len(strange) > 20
    texts = [*strange, *table["caption"][::20]]
    assert np.array_equal(ours.encode(texts, words), rows_of(theirs, texts, words))


def test_real_captions(
    shared: Callable[[str], Path], ours: ClipTokenizer, theirs: SimpleTokenizer
) -> None:
    sentences = read_json(shared("datasets/derived/MSRVTT_data.derived.json"))["sentences"]
    texts = [sentence["caption"] for sentence in sentences][::20]
    assert len(texts) > 500
    assert np.array_equal(ours.encode(texts, 32), rows_of(theirs, texts, 32))


def test_the_demos_own_vocabulary() -> None:
    """Its file is shorter than CLIP's, so that its marks have other ids."""
    path = Path(clip_weights.__file__).parent / "weights" / "clip" / "bpe.txt.gz"
    ours, theirs = ClipTokenizer(path), SimpleTokenizer(bpe_path=str(path))
    texts = ["A large red ring, then a small striped disc!", "", "zebra &amp; «é»", "it's 42"]
    assert np.array_equal(ours.encode(texts, 12), rows_of(theirs, texts, 12))
    assert (ours.vocab_size, ours.start, ours.end) == (theirs.vocab_size, *theirs.all_special_ids)


@pytest.mark.parametrize("last", ["", "\n"])
def test_another_merges_file(tmp_path: Path, last: str) -> None:
    path = tmp_path / "bpe.txt.gz"
    path.write_bytes(gzip.compress(f"#version: 0.2\nc a\nca t</w>{last}".encode()))
    tokenizer, theirs = ClipTokenizer(path), SimpleTokenizer(bpe_path=str(path))
    texts = ["cat", "ca", "cats", "cat cat"]
    assert [tokenizer.count(text) for text in texts] == [1, 2, 3, 2]
    assert np.array_equal(tokenizer.encode(texts, 6), rows_of(theirs, texts, 6))


@pytest.mark.parametrize("content", [b"plain text", gzip.compress(b"head\none two three\n")])
def test_a_file_that_holds_no_merges_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bpe.txt.gz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"bpe\.txt\.gz: not a tokenizer file"):
        ClipTokenizer(path)


def test_merges_are_those_of_open_clip() -> None:
    from open_clip.tokenizer import default_bpe

    assert clip_merges() == Path(default_bpe())
