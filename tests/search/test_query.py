from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from discovla.cli import main
from discovla.errors import UserError
from discovla.search.model import Encoder
from discovla.search.query import clock, own_vector, search, text_vector, video_vector
from discovla.search.store import Index
from tests.search.conftest import NAMES

TEXTS = ("a large red square", "a small blue circle flashes by", "<b>'; --", "x " * 300)


def scores(index: Index, query: np.ndarray) -> dict[str, tuple[float, list[float]]]:
    """The definition: every cosine, of each video and of its windows in order."""
    rows = index.videos.rows(["key", "entry", "vector"]).to_pylist()
    moments = index.moments.rows(["entry", "number", "vector"]).to_pylist()
    moments.sort(key=lambda row: row["number"])
    return {
        row["key"]: (
            float(np.array(row["vector"], np.float32) @ query),
            [
                float(np.array(part["vector"], np.float32) @ query)
                for part in moments
                if part["entry"] == row["entry"]
            ],
        )
        for row in rows
    }


@pytest.mark.parametrize("text", TEXTS)
def test_hits_are_the_largest_cosines(index: Index, encoder: Encoder, text: str) -> None:
    query = text_vector(encoder, text)
    every = scores(index, query)
    hits = search(index, query, 10)
    assert [hit.key for hit in hits] == sorted(every, key=lambda key: -every[key][0])
    for hit in hits:
        whole, parts = every[hit.key]
        assert hit.score == pytest.approx(whole, abs=1e-5)
        assert [p.number for p in hit.moments] == list(np.argsort(-np.array(parts)))[:3]
        assert [p.score for p in hit.moments] == pytest.approx(sorted(parts)[::-1][:3], abs=1e-5)
        assert hit.start == hit.moments[0].start
    by_moment = search(index, query, 10, "moment")
    assert [h.key for h in by_moment] == sorted(every, key=lambda key: -max(every[key][1]))
    assert [h.key for h in search(index, query, 2)] == [h.key for h in hits[:2]]
    assert [h.key for h in search(index, query, 1, "moment")] == [by_moment[0].key]


def test_a_video_finds_itself(index: Index, encoder: Encoder) -> None:
    for name in NAMES[:3]:
        query = video_vector(encoder, index.root / name, 60)
        (hit,) = search(index, query, 1)
        assert hit.key == name
        assert hit.score == pytest.approx(1.0, abs=1e-5)
        assert np.allclose(own_vector(index, hit.entry), query, atol=1e-6)


def test_wrong_questions_are_told(index: Index, encoder: Encoder, tmp_path: Path) -> None:
    query = text_vector(encoder, "x")
    with pytest.raises(UserError, match="is empty"):
        text_vector(encoder, " \n")
    with pytest.raises(UserError, match="1 to 500"):
        search(index, query, 0)
    with pytest.raises(UserError, match="allowed: video, moment"):
        search(index, query, 1, "frame")
    with pytest.raises(UserError, match="no such file"):
        video_vector(encoder, tmp_path / "absent.mp4", 5)
    with pytest.raises(UserError, match="no longer in the index"):
        own_vector(index, "0" * 16)


def test_times_as_people_read_them() -> None:
    assert [clock(t) for t in (0, 59.9, 61, 3600, 36_061)] == [
        *("0:00", "0:59", "1:01", "1:00:00", "10:01:01")
    ]
    assert [clock(t, within=3) for t in (0, 1.97, 2.0)] == ["0:00.0", "0:01.9", "0:02.0"]


def test_the_command(index: Index, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    place = [str(index.folder)]
    assert main(["search", *place, "a red square", "--top", "3", "--json"]) == 0
    hits = json.loads(capsys.readouterr().out)
    assert [hit["rank"] for hit in hits] == [1, 2, 3]
    assert main(["search", *place, "a red square", "--top", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=3)[3] for line in lines] == [hit["key"] for hit in hits]
    assert [float(line.split()[1]) for line in lines] == pytest.approx(
        [hit["score"] for hit in hits], abs=6e-4
    )

    video = str(index.root / "plain.mp4")
    assert main(["search", *place, "--like", video, "--top", "1"]) == 0
    rank, score, _, name = capsys.readouterr().out.split()
    assert (rank, score, name) == ("1", "1.000", "plain.mp4")
    (tmp_path / "texts.txt").write_text("a red square\n\na dog\na red square\n")
    texts = ["--texts", str(tmp_path / "texts.txt")]
    assert main(["search", *place, "--video", video, *texts, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sorted(row["text"] for row in found) == ["a dog", "a red square"]
    assert main(["search", *place, "--video", video, "--json"]) == 0
    captions = json.loads(capsys.readouterr().out)
    assert len(captions) == 1 + len(NAMES)  # one caption is of all videos
    assert [row["score"] for row in captions] == sorted(
        (r["score"] for r in captions), reverse=True
    )

    assert main(["search", *place]) == 1
    assert "give one of" in capsys.readouterr().err
    assert main(["search", str(tmp_path), "x"]) == 1
    assert "no search index" in capsys.readouterr().err
