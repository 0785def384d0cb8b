"""Batches that fit the memory, and what happens where it fails all the same."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from discovla.captioning import table
from discovla.captioning.llava.frames import Question, first_wave, frame_of
from discovla.captioning.llava.generation import Generator
from discovla.captioning.llava.images import Images
from discovla.captioning.llava.memory import Limits, Sizes, limits_of
from discovla.captioning.llava.passes import AnswerPass, PrefixPass, TailPass
from discovla.captioning.run import caption_shard
from discovla.errors import UserError
from tests.captioning.conftest import CAPTIONS_ID, noise
from tests.captioning.test_llava_shared import made, questions


def test_too_little_memory_halves_the_batch_and_keeps_what_is_done(
    llava_folder, monkeypatch, caplog
) -> None:
    images, prompts = questions()
    expected = made(llava_folder).caption(images, prompts)
    captioner = made(llava_folder)
    decoded: list[int] = []
    inner = Generator._decode

    def decode(self, rows, *others):
        if len(rows) > 2:
            raise torch.OutOfMemoryError("made up")
        decoded.extend(row.question.number for row in rows)
        return inner(self, rows, *others)

    monkeypatch.setattr(Generator, "_decode", decode)
    assert captioner.caption(images, prompts) == expected
    assert sorted(decoded) == list(range(9))
    assert captioner._limits.rows <= 2
    assert "going on with" in caplog.text


@pytest.mark.parametrize("stage", [PrefixPass, TailPass, AnswerPass])
def test_memory_that_fails_in_each_stage(llava_folder, monkeypatch, stage: type) -> None:
    """Reading a prefix, reading tails, decoding: the answers are the same, none is made twice."""
    images, prompts = questions()
    expected = made(llava_folder, batch_size=3).caption(images, prompts)
    captioner = made(llava_folder, batch_size=3)
    encoded: list[int] = []
    answered: list[int] = []
    failures = 0
    encode, decode, forward = Images.encode, Generator._decode, Generator._forward

    def encoding(self, some):
        encoded.extend(map(id, some))
        return encode(self, some)

    def decoding(self, rows, *others):
        said = decode(self, rows, *others)
        answered.extend(row.question.number for row in rows)
        return said

    def failing(self, embeddings, positions, work):
        nonlocal failures
        if isinstance(work, stage) and answered and not failures:
            failures += 1
            raise torch.OutOfMemoryError("made up")
        return forward(self, embeddings, positions, work)

    monkeypatch.setattr(Images, "encode", encoding)
    monkeypatch.setattr(Generator, "_decode", decoding)
    monkeypatch.setattr(Generator, "_forward", failing)
    assert captioner.caption(images, prompts) == expected
    assert failures == 1
    # Three waves, a frame each: the first is done, the second fails and is done anew, row by row.
    assert sorted(answered) == list(range(9))
    assert sorted(map(encoded.count, {id(image) for image in images})) == [1, 1, 2]
    assert captioner._limits.rows == 1


def test_too_little_memory_for_anything(llava_folder, monkeypatch) -> None:
    captioner = made(llava_folder)

    def encode(self, images):
        raise torch.OutOfMemoryError("made up")

    monkeypatch.setattr(Images, "encode", encode)
    with pytest.raises(UserError, match="too small for a single prompt"):
        captioner.caption(*questions())


@pytest.mark.parametrize("every", [4, 7, 13])
def test_a_shard_survives_a_memory_that_fails_again_and_again(
    llava_folder, world, monkeypatch, every: int
) -> None:
    """Reading prefixes, tails, single steps: whatever fails is done again, smaller."""
    calls = 0
    inner = Generator._forward

    def forward(self, embeddings, *others):
        nonlocal calls
        calls += 1
        # As on a card: small work fits, large work fails now and then.
        if embeddings.shape[:2].numel() > 2 and calls % every == 0 and calls < 40:
            raise torch.OutOfMemoryError("made up")
        return inner(self, embeddings, *others)

    def caption(name: str) -> bytes:
        path = world.folder / name
        inputs = (world.shard(), world.annotations, "guided", made(llava_folder), path)
        caption_shard(*inputs, captions_id=CAPTIONS_ID)
        return path.read_bytes()

    undisturbed = caption("undisturbed.parquet")
    monkeypatch.setattr(Generator, "_forward", forward)
    assert caption("disturbed.parquet") == undisturbed
    assert calls > 40


def test_finished_parts_outlive_a_memory_that_is_too_small(
    llava_folder, world, monkeypatch
) -> None:
    path = world.folder / "out.parquet"
    inputs = (world.shard(), world.annotations, "guided")
    captioner, calls = made(llava_folder), 0
    inner = Images.encode

    def encode(self, images):
        nonlocal calls
        calls += len(images)
        if calls > 9:
            raise torch.OutOfMemoryError("made up")
        return inner(self, images)

    monkeypatch.setattr(Images, "encode", encode)
    with pytest.raises(UserError, match="finished work is kept"):
        caption_shard(*inputs, captioner, path, captions_id=CAPTIONS_ID, part_size=1)
    monkeypatch.undo()
    kept = list((world.folder / "out.parquet.parts").glob("*.parquet"))
    assert len(kept) == 1
    caption_shard(*inputs, captioner, path, captions_id=CAPTIONS_ID, part_size=1)
    assert len(table.read(path)) == 18


MISTRAL_7B = SimpleNamespace(
    num_attention_heads=32, num_key_value_heads=8, hidden_size=4096, intermediate_size=14336,
    num_hidden_layers=32, vocab_size=32064,
)  # fmt: skip


def test_limits_follow_memory(monkeypatch) -> None:
    from discovla.captioning.llava import memory

    sizes = Sizes.of(MISTRAL_7B, torch.bfloat16)
    assert sizes.cached == 128 * 1024
    free = {}
    monkeypatch.setattr(memory, "free_memory", lambda device: free["bytes"])
    device = torch.device("cuda")
    free["bytes"] = 60 * 10**9
    large = limits_of(sizes, None, device)
    assert (large.rows, large.tokens) == (1024, 16384)
    assert limits_of(sizes, 7, device).rows == 7
    free["bytes"] = 10**9
    small = limits_of(sizes, None, device)
    assert small.tokens < large.tokens
    assert 0 < small.memory + small.tokens * sizes.working <= 10**9
    free["bytes"] = 0
    assert limits_of(sizes, None, device).tokens == 1


def test_waves_keep_to_rows_and_bytes() -> None:
    sizes = Sizes.of(MISTRAL_7B, torch.bfloat16)
    rows = [Question(n, (1, 4, 5, n + 10, 6)) for n in range(20)]
    frame = frame_of(noise(0, 2, 2), 1368, rows, 4)
    assert (frame.shared, frame.place, frame.length(3)) == (3, 1, 1370)
    assert {frame.tail(row) for row in rows} == {2}
    frames = [frame] * 50
    plenty = 10**12
    assert len(first_wave(frames, Limits(100, 1, plenty), sizes, 40)) == 5
    assert len(first_wave(frames, Limits(7, 1, plenty), sizes, 40)) == 1
    assert len(first_wave(frames, Limits(10**6, 1, plenty), sizes, 40)) == 50
    each = sizes.wave(prefix_tokens=1370, rows=20, row_tokens=42)
    assert len(first_wave(frames, Limits(10**6, 1, 3 * each), sizes, 40)) == 3
    assert len(first_wave(frames, Limits(10**6, 1, 0), sizes, 40)) == 1


def test_free_memory_is_there() -> None:
    from discovla.captioning.llava.memory import free_memory

    assert 10**7 < free_memory(torch.device("cpu")) < 10**14
