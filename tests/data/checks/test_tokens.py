from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from open_clip.tokenizer import SimpleTokenizer

from discovla.data.annotations import get_reader
from discovla.data.checks.tokens import TokenCounter, cleaned, clip_merges
from discovla.errors import UserError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
PIECES = st.sampled_from(
    ["a dog", " ", "  ", "\n", "don't", "I'LL", "&amp;", "&amp;lt;", "42", "«é»", "naïve", "日本",
     "<start_of_text>", "<END_OF_TEXT>", "...!?", "playing-guitar", "\u200b", "ﬁ", "’s", "İ", "'ſ"]
)  # fmt: skip


@pytest.fixture(scope="module")
def theirs() -> Callable[[str], int]:
    tokenizer = SimpleTokenizer()
    marks = {tokenizer.sot_token_id, tokenizer.eot_token_id}
    return lambda text: sum(token not in marks for token in tokenizer.encode(text))


@pytest.fixture(scope="module")
def ours() -> Callable[[str], int]:
    counter = TokenCounter()
    return lambda text: counter.count(cleaned(text))


@given(TEXT | st.lists(PIECES, max_size=12).map("".join))
def test_counts_are_those_of_open_clip(
    ours: Callable[[str], int], theirs: Callable[[str], int], text: str
) -> None:
    assert ours(text) == theirs(text)


@given(TEXT | st.lists(PIECES, max_size=12).map("".join))
def test_cleaned_text_is_that_of_open_clip(text: str) -> None:
    from open_clip.tokenizer import _clean_lower

    assert cleaned(text) == _clean_lower(text)


def test_real_paragraphs_count_as_in_open_clip(
    shared: Callable[[str], Path], ours: Callable[[str], int], theirs: Callable[[str], int]
) -> None:
    root = shared("datasets/activitynet/val_1.json").parent
    table = get_reader("activitynet").read(root, {"paragraph_order": "file"})
    strange = [text for text in table["caption"] if not text.isascii()]
    assert len(strange) > 20
    for text in [*strange, *table["caption"][::100]]:
        assert ours(text) == theirs(text)


def test_another_merges_file(tmp_path: Path) -> None:
    path = tmp_path / "bpe.txt.gz"
    path.write_bytes(gzip.compress(b"#version: 0.2\nc a\nca t</w>\n"))
    counter = TokenCounter(path)
    assert [counter.count(text) for text in ("cat", "ca", "cats", "cat cat")] == [1, 2, 3, 2]


@pytest.mark.parametrize("content", [b"plain text", gzip.compress(b"head\none two three\n")])
def test_a_file_that_holds_no_merges_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bpe.txt.gz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"bpe\.txt\.gz: not a tokenizer file"):
        TokenCounter(path)


def test_merges_are_those_of_open_clip() -> None:
    from open_clip.tokenizer import default_bpe

    assert clip_merges() == Path(default_bpe())
