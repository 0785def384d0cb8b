from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from discovla.data.augment import prepare
from discovla.data.decode import Request, decode_clip
from discovla.errors import UserError
from discovla.search import build as building
from discovla.search import store
from discovla.search.build import Report, build, remove
from discovla.search.model import Encoder, Source, of_run
from discovla.search.query import search
from discovla.search.store import Index, Writer
from discovla.search.vectors import VectorTable, matrix_of
from discovla.training.checkpoint import (
    adapter_metadata,
    load_run,
    open_run,
    read_run_config,
    save_adapter,
)
from tests.search.conftest import NAMES, OPTIONS
from tests.training import world as runs

Fill = Callable[[Path], Path]
Content = dict[str, tuple[Any, ...]]


def content(folder: Path) -> Content:
    """Key → path, vector and moments of every video of an index; nothing may be there twice."""
    index = Index(folder)
    rows = index.videos.rows(["key", "entry", "path", "vector"])
    moments = index.moments.rows(["entry", "number", "start", "vector"])
    found: Content = {}
    for row in rows.to_pylist():
        parts = [m for m in moments.to_pylist() if m["entry"] == row["entry"]]
        assert sorted(part["number"] for part in parts) == list(range(len(parts)))
        ordered = sorted(parts, key=lambda part: part["number"])
        assert row["key"] not in found
        found[row["key"]] = (
            row["path"],
            row["vector"],
            [(m["start"], m["vector"]) for m in ordered],
        )
    assert sum(len(parts) for _, _, parts in found.values()) == len(index.moments)
    return found


def made(source: Path, folder: Path, model: Source | None = None, **more: Any) -> Report:
    options = replace(OPTIONS, **more.pop("options", {}))
    more = {"window": 1.0, **more} if model else more
    return build(source, folder, model, options=options, **more)


@pytest.fixture
def videos(tmp_path: Path, fill: Fill) -> Path:
    return fill(tmp_path / "videos")


def test_vectors_are_those_of_evaluation(index: Index, encoder: Encoder) -> None:
    retriever = load_run(index.model / "config.json", None, "cpu")
    rows = index.videos.rows(["path", "vector"])
    for row in rows.to_pylist():
        # The definition: as `EvalClips` and `extract_features` do it.
        clip = decode_clip(Request(str(index.root / row["path"]), "released", 12))
        batch = torch.from_numpy(prepare(clip.frames, 64))[None]
        with torch.inference_mode():
            pooled = retriever.encode_video(batch, torch.ones(1, 12, dtype=torch.bool)).pooled
        assert np.allclose(F.normalize(pooled, dim=-1)[0].numpy(), row["vector"], atol=1e-6)
    assert np.allclose(np.linalg.norm(matrix_of(rows["vector"]), axis=1), 1, atol=1e-5)


def test_signs_that_a_terminal_obeys_are_not_told(
    tmp_path: Path, clips: list[Path], model: Source
) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    shutil.copy(clips[0], videos / "fine.mp4")
    (videos / "two\nlines \x1b[2J.mp4").write_bytes(b"no video")
    report = made(videos, tmp_path / "index", model)
    assert list(report.unreadable) == ["two\nlines \x1b[2J.mp4"]  # the name that --remove takes
    (problem,) = report.unreadable.values()
    assert f"{videos}/two?lines ?[2J.mp4: " in problem
    assert problem.isprintable()


def test_an_index_follows_its_folder(
    tmp_path: Path, videos: Path, clips: list[Path], model: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "index"
    report = made(videos, folder, model)
    assert (report.added, report.videos, report.moments) == (6, 6, 18)
    assert list(report.unreadable) == ["broken.mp4"]
    assert set(content(folder)) == set(NAMES)
    before = content(folder)

    # Nothing is read again: neither what is as it was, nor what is only touched, nor bad files.
    with monkeypatch.context() as patch:
        patch.setattr(building, "read_video", lambda *_: pytest.fail("read again"))
        os.utime(videos / "plain.mp4", (1, 1))
        report = made(videos, folder)
        assert (report.added, report.changed, report.unchanged) == (0, 0, 6)
        assert made(videos, folder).unchanged == 6
    assert content(folder) == before

    shutil.copy(clips[-1], videos / "plain.mp4")
    shutil.copy(clips[0], videos / "broken.mp4")
    (videos / NAMES[1]).unlink()
    report = made(videos, folder)
    assert (report.added, report.changed, report.gone, report.unreadable) == (1, 1, 1, {})
    after = content(folder)
    assert set(after) == {*NAMES, "broken.mp4"}
    assert after["broken.mp4"][1:] == before["plain.mp4"][1:]
    assert after["plain.mp4"][1] != before["plain.mp4"][1]
    assert made(videos, folder, options={"prune": True}).pruned == 1
    assert set(content(folder)) == {*NAMES, "broken.mp4"} - {NAMES[1]}

    (videos / "plain.mp4").write_bytes(b"now damaged")
    assert list(made(videos, folder).unreadable) == ["plain.mp4"]
    assert "plain.mp4" not in content(folder)


def test_removing_by_name(tmp_path: Path, videos: Path, model: Source) -> None:
    folder = tmp_path / "index"
    made(videos, folder, model)
    with pytest.raises(UserError, match="'no such' is not in the index"):
        remove(folder, [NAMES[0], "no such"])
    assert len(content(folder)) == 6
    assert remove(folder, [NAMES[5], NAMES[2], "broken.mp4"]) == 4
    assert set(content(folder)) == set(NAMES) - {NAMES[5], NAMES[2]}
    assert Index(folder).unreadable == {}


def test_interrupted_it_goes_on(
    tmp_path: Path, videos: Path, model: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(videos, tmp_path / "whole", model)
    folder, encode, calls = tmp_path / "index", Encoder.videos, []

    def stopped(self: Encoder, frames: Any) -> Any:
        calls.append(len(frames))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return encode(self, frames)

    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "videos", stopped)
        with pytest.raises(KeyboardInterrupt):
            made(videos, folder, model, options={"commit_after": 1000.0})
    assert len(content(folder)) == 3  # searchable already
    assert made(videos, folder).added == 3
    assert content(folder) == content(tmp_path / "whole")


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_an_interrupted_commit_doubles_nothing(
    tmp_path: Path, videos: Path, model: Source, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    made(videos, tmp_path / "whole", model)
    add, calls = VectorTable.add, []

    def stopped(self: VectorTable, rows: Any) -> None:
        add(self, rows)
        calls.append(self.path.name)
        if len(calls) == stop:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(VectorTable, "add", stopped)
        with pytest.raises(KeyboardInterrupt):
            made(videos, tmp_path / "index", model)
    assert calls == ["moments", "videos", "moments", "videos"][:stop]
    made(videos, tmp_path / "index")
    assert content(tmp_path / "index") == content(tmp_path / "whole")


def test_what_a_dead_process_left_is_never_found_and_swept_out(
    tmp_path: Path, videos: Path, model: Source, encoder: Encoder
) -> None:
    folder = tmp_path / "index"
    made(videos, folder, model)
    before, index = content(folder), Writer(folder)
    lost = index.moments.rows(index.moments.schema.names).slice(0, 3)
    place = lost.schema.get_field_index("entry")
    lost = lost.set_column(place, "entry", [["f" * 16] * 3])
    index.moments.add(lost.cast(index.moments.schema))
    query = matrix_of(lost["vector"])[0]
    assert all(hit.entry != "f" * 16 for hit in search(Index(folder), query, 6, "moment"))
    made(videos, folder)
    assert content(folder) == before


def test_a_rebuild_replaces_the_index_when_it_is_done(
    tmp_path: Path, videos: Path, model: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "index"
    made(videos, folder, model)
    with pytest.raises(UserError, match=r"made with window 1\.0, now 3\.0"):
        made(videos, folder, model, window=3.0)
    encode, calls = Encoder.videos, []

    def stopped(self: Encoder, frames: Any) -> Any:
        calls.append(len(frames))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(self, frames)

    reader = Index(folder)
    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "videos", stopped)
        with pytest.raises(KeyboardInterrupt):
            made(videos, folder, model, window=3.0, rebuild=True)
    assert len(Index(folder).moments) == 18  # the old one is in use
    report = made(videos, folder, model, window=3.0, rebuild=True)
    assert (report.added, report.unchanged, report.moments) == (4, 2, 6)
    assert len(reader.refreshed().moments) == 6
    assert store.generations(folder) == ["g2"]


def test_one_process_at_a_time(tmp_path: Path, videos: Path, model: Source) -> None:
    with (
        store.locked(tmp_path / "index"),
        pytest.raises(UserError, match=f"process {os.getpid()} is changing"),
    ):
        made(videos, tmp_path / "index", model)


def test_mistakes_are_told(tmp_path: Path, videos: Path, model: Source, fill: Fill) -> None:
    with pytest.raises(UserError, match="no search index"):
        Index(tmp_path / "index")
    with pytest.raises(UserError, match="a new index needs --model"):
        made(videos, tmp_path / "index")
    made(videos, tmp_path / "index", model)
    other = replace(model, config={**model.config, "run_id": "another"})
    with pytest.raises(UserError, match="made with model"):
        made(videos, tmp_path / "index", other)
    with pytest.raises(UserError, match="made with root"):
        made(fill(tmp_path / "elsewhere"), tmp_path / "index")
    with pytest.raises(UserError, match=r"0\.1 to 3600"):
        made(videos, tmp_path / "index", model, window=0.01)
    with pytest.raises(UserError, match=r"no config\.json"):
        of_run(tmp_path)


def test_a_trained_run_is_kept_with_the_index(tmp_path: Path, videos: Path) -> None:
    """Its adapter is copied; the index does not need the run's folder any more."""
    world = runs.build(tmp_path / "run")
    run = open_run(read_run_config(world.config_path), seed=3, device="cpu")
    about = {"method": "discovla", "selection": "last", "data_id": "0" * 10, "excluded": []}
    metadata = adapter_metadata(run_id=run.run_id, seed=3, step=1, **about)
    path = tmp_path / "run" / "seed3" / "adapter.safetensors"
    path.parent.mkdir()
    save_adapter(path, run.retriever.trainable_state(), metadata)
    source = of_run(path.parent)
    assert source == of_run(tmp_path / "run")
    assert source.adapter == path
    report = made(videos, tmp_path / "index", source)
    assert report.videos == 6
    shutil.rmtree(path.parent)
    encoder = Encoder(Index(tmp_path / "index").model, "cpu")
    ids, mask = run.backbone.tokenize(["red cat"], run.settings.words)
    with torch.inference_mode():
        expected = F.normalize(run.retriever.encode_text(ids, mask), dim=-1)
    assert np.allclose(encoder.texts(["red cat"]), expected.numpy(), atol=1e-6)
