from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from discovla.captioning import table
from discovla.captioning.released import released_shard
from discovla.errors import UserError
from tests.captioning.conftest import CAPTIONS_ID
from tests.captioning.test_run import rows


def released(world, content: Any) -> dict[str, Any]:
    path = world.folder / "released.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return released_shard(
        path,
        world.shard(),
        world.annotations,
        world.folder / "out.parquet",
        captions_id=CAPTIONS_ID,
    )


def whole_file(world) -> dict[str, list[str]]:
    return {
        f"{row.video_id}_{row.caption}": [f"{row.caption} at {i}" for i in range(3)]
        for row in world.training_captions().itertuples()
    }


def test_released_captions_join_by_the_literal_key(world, caplog) -> None:
    content = whole_file(world)
    removed = content.pop("-rf ../'x\"_a {caption} of </s> <image> and {0}")
    content["-rf ../'x\"_A {caption} of </s> <image> and {0}"] = removed  # not literally equal
    with caplog.at_level(logging.INFO):
        metadata = released(world, content)
    assert metadata["absent"] == ["-rf ../'x\"#0"]
    # of 7 training captions, one of them of the broken clip
    assert "5 of 7 training captions have a key, 2 do not; 1 keys are not used" in caplog.text
    got = rows(world)
    assert len(got) == 5 * 3
    assert all(
        row["pseudo_caption"] == f"{row['video_caption']} at {row['position']}" for row in got
    )
    assert {row["finish_reason"] for row in got} == {"released"}
    assert {row["n_tokens"] for row in got} == {None}
    # The merged table is complete without them, and says which they are.
    out = world.folder / "merged.parquet"
    merged = table.merge([world.folder / "out.parquet"], world.annotations, CAPTIONS_ID, out)
    assert table.CaptionTable(out).absent == {"-rf ../'x\"#0"}
    assert merged["counts"]["captions_absent"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"other_key": ["a", "b", "c"]}, "no key fits.*plain_a red ring moves.*other_key"),
        ({"plain_a red ring moves": ["a", "b"]}, "should hold 3 captions"),
        ({"plain_a red ring moves": "abc"}, "should hold 3 captions"),
        ([1, 2], "expected an object"),
        ('{"plain', "not valid JSON"),
    ],
)
def test_released_files_that_do_not_fit(world, content, message) -> None:
    with pytest.raises(UserError, match=message):
        released(world, content)
