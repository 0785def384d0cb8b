from __future__ import annotations

import gzip
import logging
from pathlib import Path

import numpy as np
import pytest
from open_clip.tokenizer import SimpleTokenizer

from discovla.captioning import table
from discovla.captioning.run import caption_shard
from discovla.captioning.tokens import CaptionTokens
from discovla.errors import UserError
from discovla.tokenizer import ClipTokenizer
from discovla.verify import verify
from tests.captioning.conftest import CAPTIONS_ID, FakeCaptioner, World, echo


@pytest.fixture(scope="module")
def tokenizer() -> ClipTokenizer:
    return ClipTokenizer()


@pytest.fixture
def captions(world: World) -> table.CaptionTable:
    return merged(world, FakeCaptioner(lambda *args: f"«ü» & {echo(*args)}"))


def merged(world: World, captioner: FakeCaptioner) -> table.CaptionTable:
    shard, path = world.folder / "1-of-1.parquet", world.folder / "captions" / "merged.parquet"
    caption_shard(
        world.shard(), world.annotations, "guided", captioner, shard, captions_id=CAPTIONS_ID
    )
    table.merge([shard], world.annotations, CAPTIONS_ID, path)
    return table.CaptionTable(path)


def files(captions: table.CaptionTable) -> list[Path]:
    return sorted(captions.path.with_suffix(".tokens").iterdir())


@pytest.mark.parametrize("words", [5, 32])
def test_ids_are_those_of_open_clip(
    captions: table.CaptionTable, tokenizer: ClipTokenizer, words: int
) -> None:
    theirs = SimpleTokenizer()
    made, kept = (CaptionTokens(captions, tokenizer, words) for _ in range(2))
    assert len(made) == len(captions)
    for caption_id in captions._row:
        assert caption_id in made
        expected = np.zeros((3, words), np.int64)
        for row, text in zip(expected, captions.for_caption(caption_id), strict=True):
            body = theirs.encode(text)[: words - 2]
            row[: len(body) + 2] = [theirs.sot_token_id, *body, theirs.eot_token_id]
        for tokens in (made, kept):
            assert np.array_equal(tokens.for_caption(caption_id), expected)
    assert "exam#0" not in made
    with pytest.raises(UserError, match="no pseudo captions for caption 'exam#0'"):
        made.for_caption("exam#0")


class Forbidden(ClipTokenizer):
    """Stands for a tokenizer that should not be needed any more."""

    def encode(self, texts, words):
        raise AssertionError("made again")


def test_ids_are_made_once(captions: table.CaptionTable, tokenizer: ClipTokenizer) -> None:
    CaptionTokens(captions, tokenizer, 32)
    (path,) = files(captions)
    CaptionTokens(table.CaptionTable(captions.path), Forbidden(), 32)
    with pytest.raises(AssertionError, match="made again"):
        CaptionTokens(captions, Forbidden(), 31)
    assert files(captions) == [path]


def test_what_they_are_made_from_decides(
    world: World, captions: table.CaptionTable, tokenizer: ClipTokenizer
) -> None:
    other = world.folder / "bpe.txt.gz"
    other.write_bytes(gzip.compress(b"#version: 0.2\nf r\nfr a\n"))
    CaptionTokens(captions, tokenizer, 32)
    CaptionTokens(captions, ClipTokenizer(other), 32)
    CaptionTokens(captions, tokenizer, 16)
    assert len(files(captions)) == 3
    for path in files(captions):
        assert verify(path).startswith("token ids of captions: 18 rows of ")
    again = merged(world, FakeCaptioner(lambda *_: "something else"))
    tokens = CaptionTokens(again, tokenizer, 32)
    assert len(files(captions)) == 4
    expected = tokenizer.encode(["something else"] * 3, 32)
    assert np.array_equal(tokens.for_caption(next(iter(again._row))), expected)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "of other texts"])
def test_a_damaged_file_is_made_again(
    captions: table.CaptionTable,
    tokenizer: ClipTokenizer,
    caplog: pytest.LogCaptureFixture,
    damage: str,
) -> None:
    first = next(iter(captions._row))
    expected = CaptionTokens(captions, tokenizer, 32).for_caption(first).copy()
    (path,) = files(captions)
    whole = path.read_bytes()
    where = whole.index(expected.tobytes()[:16])
    if damage == "of other texts":
        CaptionTokens(captions, tokenizer, 31)
        path.write_bytes(next(p for p in files(captions) if p != path).read_bytes())
    else:
        flipped = whole[:where] + bytes([whole[where] ^ 1]) + whole[where + 1 :]
        path.write_bytes({"cut": whole[:-300], "flipped": flipped, "empty": b""}[damage])
    if damage != "of other texts":
        with pytest.raises(UserError, match=rf"{path.name}: (cannot|damaged)"):
            verify(path)
    with caplog.at_level(logging.WARNING):
        found = CaptionTokens(captions, tokenizer, 32)
    assert "made again" in caplog.text
    assert np.array_equal(found.for_caption(first), expected)
    assert path.read_bytes() == whole


def test_a_folder_that_cannot_be_written_costs_only_time(
    captions: table.CaptionTable,
    tokenizer: ClipTokenizer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    captions.path.with_suffix(".tokens").write_text("in the way", encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        found = CaptionTokens(captions, tokenizer, 32)
    assert "tokens are not kept" in caplog.text
    assert found.for_caption(next(iter(captions._row))).shape == (3, 32)


def test_a_table_without_rows(world: World, tokenizer: ClipTokenizer) -> None:
    path = world.folder / "none.parquet"
    metadata = {"captions_id": CAPTIONS_ID, "frames_per_clip": 3, "kind": "guided"}
    table.write_shard([], path, {**metadata, "excluded": [], "absent": []})
    for _ in range(2):
        assert len(CaptionTokens(table.CaptionTable(path), tokenizer, 32)) == 0
    assert len(list(path.with_suffix(".tokens").iterdir())) == 1
