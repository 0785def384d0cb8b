from __future__ import annotations

import json
import logging
import os
import signal
from collections import Counter
from dataclasses import replace
from typing import Any

import pyarrow.parquet as pq
import pytest

from discovla.captioning import run as captioning
from discovla.captioning import table
from discovla.captioning.length import WORDS
from discovla.captioning.prompt import PROMPTS, prompt_text
from discovla.captioning.run import caption_shard
from discovla.data.tables import METADATA_KEY
from discovla.errors import UserError
from discovla.interruption import Terminated, terminable
from tests.captioning.conftest import CAPTIONS_ID, FRAMES_ID, FakeCaptioner, echo


def run(world, captioner, output="out.parquet", kind="guided", part_size=512, **options):
    return caption_shard(
        options.get("frames") or world.shard(),
        world.annotations,
        kind,
        captioner,
        world.folder / output,
        captions_id=CAPTIONS_ID,
        part_size=part_size,
        words=options.get("words", WORDS),
    )


def rows(world, output="out.parquet") -> list[dict[str, Any]]:
    return table.read(world.folder / output).to_pylist()


@pytest.mark.parametrize("kind", ["guided", "unguided"])
def test_rows_are_the_naive_ones(world, kind) -> None:
    metadata = run(world, FakeCaptioner(echo), kind=kind)
    naive = []
    for row in world.training_captions().itertuples():
        images = world.images(row.clip_id)
        for position, image in enumerate(images):
            index = world.frame_index.get(row.clip_id, range(3))[position]
            text = echo(image, prompt_text(kind, row.caption), False).strip()
            naive.append(
                {
                    "clip_id": row.clip_id,
                    "caption_id": row.caption_id,
                    "position": position,
                    "frame_index": index,
                    "timestamp": index / 10,
                    "video_caption": row.caption,
                    "pseudo_caption": text,
                    "n_tokens": len(text.split()),
                    "finish_reason": "stop",
                    "status": "ok",
                }
            )
    assert rows(world) == naive
    assert metadata == {
        "captions_id": CAPTIONS_ID,
        "shard": "1-of-1",
        "frames_id": FRAMES_ID,
        "frames_per_clip": 3,
        "kind": kind,
        "prompt": PROMPTS[kind],
        "words": 32,
        **FakeCaptioner(echo).describe(),
        "excluded": ["broken"],
        "absent": [],
    }
    assert table.read_metadata(world.folder / "out.parquet") == {"schema": 2, **metadata}


def test_each_question_is_asked_once(world) -> None:
    guided, unguided = FakeCaptioner(echo), FakeCaptioner(echo)
    run(world, guided)
    run(world, unguided, kind="unguided")
    # plain: 2 distinct captions x 3 frames; the hostile one: 2 x 3; short: 1 x 2 distinct frames
    assert len(guided.asked) == len(set(guided.asked)) == 2 * 3 + 2 * 3 + 1 * 2
    # once per distinct frame
    assert len(unguided.asked) == len(set(unguided.asked)) == 3 + 3 + 2


def test_no_test_caption_is_ever_asked_about(world) -> None:
    captioner = FakeCaptioner(echo)
    run(world, captioner)
    assert not any("secret" in prompt for _, prompt, _ in captioner.asked)
    assert "exam" not in {row["clip_id"] for row in rows(world)}


def test_same_frame_is_the_same_object(world) -> None:
    """The engine encodes an image once if it is one object: the shard must hand it over so."""

    class Watching(FakeCaptioner):
        def caption(self, images, prompts, *, second_try=False):
            self.objects = {id(image) for image in images}
            return super().caption(images, prompts, second_try=second_try)

    captioner = Watching(echo)
    run(world, captioner)
    assert len(captioner.objects) == 3 + 3 + 2


@pytest.mark.parametrize("stop_after", [0, 1, 2])
def test_resume_after_a_kill(world, stop_after) -> None:
    undisturbed = FakeCaptioner(echo)
    run(world, undisturbed, "whole.parquet", part_size=1)
    killed = FakeCaptioner(echo, stop_after)
    with pytest.raises(KeyboardInterrupt):
        run(world, killed, part_size=1)
    assert not (world.folder / "out.parquet").exists()
    again = FakeCaptioner(echo)
    run(world, again, part_size=1)
    whole, resumed = (world.folder / name for name in ("whole.parquet", "out.parquet"))
    assert resumed.read_bytes() == whole.read_bytes()
    assert killed.asked + again.asked == undisturbed.asked


def test_a_finished_shard_that_was_removed_is_put_together_again(world) -> None:
    """Snakemake removes it when its group is put back into a cluster's queue."""
    run(world, FakeCaptioner(echo), part_size=1)
    output = world.folder / "out.parquet"
    whole = output.read_bytes()
    output.unlink()
    again = FakeCaptioner(echo)
    run(world, again, part_size=1)
    assert again.asked == []
    assert output.read_bytes() == whole
    assert list(world.folder.glob("*.parts"))
    table.merge([output], world.annotations, CAPTIONS_ID, world.folder / "merged.parquet")
    assert not list(world.folder.glob("*.parts"))


def test_sigterm_lets_the_running_part_be_finished(world) -> None:
    class Disturbed(FakeCaptioner):
        def caption(self, images, prompts, *, second_try=False):
            os.kill(os.getpid(), signal.SIGTERM)
            return super().caption(images, prompts, second_try=second_try)

    with pytest.raises(Terminated):
        run(world, Disturbed(echo), part_size=1)
    assert len(list(world.folder.glob("*.parts/*.parquet"))) == 1
    undisturbed, again = FakeCaptioner(echo), FakeCaptioner(echo)
    run(world, undisturbed, "whole.parquet", part_size=1)
    run(world, again, part_size=1)
    whole, resumed = (world.folder / name for name in ("whole.parquet", "out.parquet"))
    assert resumed.read_bytes() == whole.read_bytes()
    assert 0 < len(again.asked) < len(undisturbed.asked)


def test_sigterm_after_the_last_part_comes_too_late(world, monkeypatch) -> None:
    """To end with an error would make Snakemake remove the shard."""

    def joined(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        join(*arguments)

    join = captioning._join
    monkeypatch.setattr(captioning, "_join", joined)
    with terminable():
        run(world, FakeCaptioner(echo))
    table.read(world.folder / "out.parquet")


def test_parts_of_other_work_are_not_taken_over(world) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(world, FakeCaptioner(lambda *_: "old", stop_after=1), part_size=1)

    class Newer(FakeCaptioner):
        def describe(self):
            return {**super().describe(), "model": "newer"}

    run(world, Newer(echo), part_size=1)
    assert all(row["pseudo_caption"].startswith("frame") for row in rows(world))


def test_damaged_part_is_made_again(world, caplog) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(world, FakeCaptioner(echo, stop_after=2), part_size=1)
    (world.folder / "out.parquet.parts" / "00001.parquet").write_bytes(b"PAR1 nonsense")
    again = FakeCaptioner(echo)
    run(world, again, part_size=1)
    assert "made again" in caplog.text
    assert len({row["caption_id"] for row in rows(world)}) == 6


def test_faulty_answers_are_retried_once_and_kept(world, caplog) -> None:
    def say(image, prompt: str, second_try: bool) -> str:
        if "green cross" in prompt:
            return "" if not second_try else "better now"
        if "blue disc" in prompt:
            return "a red a red a red"
        if "small disc" in prompt:
            return "so so so so" if second_try else ""
        return "fine"

    captioner = FakeCaptioner(say)
    with caplog.at_level(logging.WARNING):
        run(world, captioner)
    answers = {row["video_caption"]: (row["pseudo_caption"], row["status"]) for row in rows(world)}
    assert answers["a green cross jumps"] == ("better now", "retried")
    assert answers["a red ring and a blue disc"] == ("a red a red a red", "repeated")
    assert answers["a small disc"] == ("so so so so", "repeated")
    assert answers["a red ring moves"] == ("fine", "ok")
    assert len(rows(world)) == 6 * 3
    assert max(Counter((m, p) for m, p, second in captioner.asked if second).values()) == 1
    assert "position 2: repeated" in caplog.text


def test_empty_stays_empty_and_is_kept(world) -> None:
    run(world, FakeCaptioner(lambda *_: ""))
    assert {(row["pseudo_caption"], row["status"]) for row in rows(world)} == {("", "empty")}
    assert len(rows(world)) == 6 * 3


VOCABULARY = (  # noqa: SIM905
    "dog cat man car red sky tree ball road bird fish book door moon ship snow rain fire king ring "
    "star lake rock sand leaf lamp desk hat shoe coat hand foot nose ear eye arm leg toe rug mud "
    "fog ice oil tin wax jam pie egg nut fig pea oat rye hen pig cow ant gold wood milk cake salt"
).split()


def words(count: int) -> str:
    """As many words, of one token each, that repeat nothing."""
    return " ".join(VOCABULARY[:count])


def test_unfinished_answers_are_asked_for_once_more_with_more_room(world, caplog) -> None:
    said = {
        "a red ring moves": words(12),  # ends in time
        "a red ring and a blue disc": words(25),  # cut off at 20, whole at 40
        "a green cross jumps": words(64),  # cut off at 40 too, but CLIP reads no more than 30
        "a small disc": "",  # another fault, which may not be asked about a third time
    }

    def say(image, prompt: str, second_try: bool) -> str:
        caption = next((c for c in said if f"describes {c}." in prompt), "")
        return words(50) if second_try else said.get(caption, "fine")

    captioner = FakeCaptioner(say, longest=20)
    run(world, captioner)
    found = {row["video_caption"]: row for row in rows(world)}
    told = {
        caption: (len(row["pseudo_caption"].split()), row["finish_reason"], row["status"])
        for caption, row in found.items()
        if caption in said
    }
    assert told == {
        "a red ring moves": (12, "stop", "ok"),
        "a red ring and a blue disc": (25, "stop", "retried"),
        "a green cross jumps": (40, "length", "retried"),
        "a small disc": (20, "length", "unfinished"),
    }
    assert "unfinished after two tries" in caplog.text
    again = [question for question, times in Counter(captioner.asked).items() if times > 1]
    assert sorted({prompt for _, prompt, _ in again}) == sorted(
        prompt_text("guided", c) for c in ("a red ring and a blue disc", "a green cross jumps")
    )
    assert max(Counter(captioner.asked_longer).values()) == 1


def test_a_cut_off_answer_that_clip_reads_whole_is_not_asked_again(world) -> None:
    captioner = FakeCaptioner(lambda *_: words(64), longest=30)
    run(world, captioner)
    assert captioner.asked_longer == []
    assert {(row["finish_reason"], row["status"]) for row in rows(world)} == {("length", "ok")}


@pytest.mark.parametrize(
    ("asked", "said", "again"), [(32, 29, True), (32, 30, False), (64, 61, True), (64, 62, False)]
)
def test_how_much_is_read_depends_on_the_dataset(world, asked: int, said: int, again: bool) -> None:
    """CLIP reads 62 tokens of ActivityNet's and DiDeMo's captions: 30 are no whole answer there."""
    captioner = FakeCaptioner(lambda *_: words(64), longest=said)
    assert run(world, captioner, words=asked)["words"] == asked
    assert bool(captioner.asked_longer) == again
    assert {row["status"] for row in rows(world)} == {"retried" if again else "ok"}


@pytest.mark.parametrize("reason", ["content_filter", "abort"])
def test_an_answer_that_the_server_broke_off_is_no_whole_one(world, reason: str) -> None:
    class Broken(FakeCaptioner):
        def caption(self, images, prompts, **how):
            found = super().caption(images, prompts, **how)
            return [replace(caption, finish_reason=reason) for caption in found]

    captioner = Broken(lambda *_: words(5))
    run(world, captioner)
    assert {(row["status"], row["finish_reason"]) for row in rows(world)} == {
        ("unfinished", reason)
    }


def test_what_stays_unfinished_is_kept_and_listed(world) -> None:
    captioner = FakeCaptioner(lambda *_: words(64), longest=8)
    run(world, captioner)
    merged = world.folder / "merged.parquet"
    metadata = table.merge([world.folder / "out.parquet"], world.annotations, CAPTIONS_ID, merged)
    assert metadata["counts"] == {
        "rows": 18,
        "unfinished": 18,
        "cut_off": 18,
        "clips_without_frames": 1,
    }
    assert len(metadata["remaining"]["unfinished"]) == 18
    assert {len(row["pseudo_caption"].split()) for row in rows(world)} == {16}


def test_a_loop_behind_the_cut_is_not_taken(world) -> None:
    loop = words(10) + " so so so so so"
    run(world, FakeCaptioner(lambda *_: loop, longest=10))
    assert {(row["pseudo_caption"], row["status"]) for row in rows(world)} == {
        (words(10), "unfinished")
    }


def test_shard_without_training_clips(world) -> None:
    total = 64  # more shards than clips: some are empty
    from discovla.data.shards import shard_of

    taken = {shard_of(clip_id, total) for clip_id in [*world.captions, "exam"]}
    for number in {1, 2, 3, 4, 5, 6} - taken | {shard_of("exam", total)}:
        captioner = FakeCaptioner(echo)
        run(world, captioner, frames=world.shard(number, total))
        assert captioner.asked == rows(world) == []


def test_bad_inputs(world) -> None:
    with pytest.raises(UserError, match="guided, unguided"):
        run(world, FakeCaptioner(echo), kind="poem")
    with pytest.raises(UserError, match=r"none\.arrow"):
        run(world, FakeCaptioner(echo), frames=world.folder / "none.arrow")


def test_metadata_is_plain_json(world) -> None:
    run(world, FakeCaptioner(echo))
    stored = pq.read_schema(world.folder / "out.parquet").metadata[METADATA_KEY]
    assert json.loads(stored)["schema"] == 2
