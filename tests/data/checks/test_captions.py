from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from discovla.data.annotations import get_reader
from discovla.data.annotations.base import Clip, to_table
from discovla.data.checks.captions import Limit, caption_facts, token_counts

WORD = st.sampled_from(["a", "Dog", "guitar", "é", "."])
TEXT = st.lists(WORD, min_size=1, max_size=8).map(" ".join)


@given(st.lists(st.tuples(st.sampled_from(["train", "test"]), TEXT), min_size=1, max_size=12))
def test_facts_are_the_naive_counts(pairs: list[tuple[str, str]]) -> None:
    table = to_table((Clip(f"c{i}", split, ("s",)), text) for i, (split, text) in enumerate(pairs))
    facts = caption_facts(table, [Limit(5), Limit(9)])
    assert set(facts) == {split for split, _ in pairs}
    for split, found in facts.items():
        texts = [text for name, text in pairs if name == split]
        lengths = token_counts(texts)
        assert found == {
            "captions": len(texts),
            "distinct": len({text.lower() for text in texts}),
            "non_ascii": sum("é" in text for text in texts),
            "without_words": 0,
            "tokens": sum(lengths),
            "longest": max(lengths),
            "cut": [
                {
                    "words": words,
                    "captions": sum(n + 2 > words for n in lengths),
                    "tokens": sum(max(0, n + 2 - words) for n in lengths),
                }
                for words in (5, 9)
            ],
        }


def test_a_caption_that_is_nothing_to_the_model() -> None:
    table = to_table([(Clip("a", "test", ("a",)), "&nbsp;"), (Clip("b", "test", ("b",)), "word")])
    assert caption_facts(table, [Limit(32)])["test"]["without_words"] == 1


def over(texts: Iterable[str], words: int) -> int:
    return sum(len(text.split()) > words for text in texts)


def test_activitynet_paragraphs_that_are_cut(shared: Callable[[str], Path]) -> None:
    root = shared("datasets/activitynet/val_1.json").parent
    table = get_reader("activitynet").read(root, {"paragraph_order": "file"})
    facts = caption_facts(table, [Limit(64)])
    # A word is one token at least, so more paragraphs are cut than have too many words.
    for split, n, over_words, cut in (("test", 4917, 959, 1275), ("train", 10009, 2236, 2901)):
        assert facts[split]["captions"] == n
        assert over(table.loc[table["split"] == split, "caption"], 62) == over_words
        assert facts[split]["cut"][0]["captions"] == cut


def test_didemo_paragraphs_that_are_cut(shared: Callable[[str], Path], tmp_path: Path) -> None:
    for name in ("val_data.json", "test_data.json"):
        (tmp_path / name).symlink_to(shared(f"datasets/didemo/{name}"))
    one = json.loads((tmp_path / "val_data.json").read_text())[0]
    (tmp_path / "train_data.json").write_text(json.dumps([{**one, "video": "1@N01_2_3.mov"}]))
    table = get_reader("didemo").read(tmp_path, {"paragraph_order": "file", "join": "stem"})
    facts = caption_facts(table, [Limit(64)])
    for split, over_words in (("val", 5), ("test", 7)):
        texts = table.loc[table["split"] == split, "caption"]
        assert over(texts, 62) == over_words
        assert facts[split]["cut"][0]["captions"] == sum(n > 62 for n in token_counts(list(texts)))
        assert facts[split]["cut"][0]["captions"] >= over_words


def test_msrvtt_queries_that_repeat_another(shared: Callable[[str], Path]) -> None:
    with shared("datasets/msrvtt/MSRVTT_JSFUSION_test.csv").open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    table = to_table((Clip(r["video_id"], "test", (r["video_id"],)), r["sentence"]) for r in rows)
    facts = caption_facts(table, [Limit(32)])["test"]
    assert (facts["captions"], facts["distinct"], facts["non_ascii"]) == (1000, 995, 0)
