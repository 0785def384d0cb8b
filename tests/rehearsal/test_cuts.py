"""The cuts themselves: written, read by the project's readers, checked; nothing is trained."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from discovla.cli import main
from discovla.data.annotations import get_reader
from discovla.data.annotations.base import count, validate
from discovla.data.clips import VideoIndex, stems_of_clips
from discovla.data.decode import Request, decode_clip
from discovla.experiments import Experiments
from tests.rehearsal import didemo
from tests.rehearsal.__main__ import CUTS
from tests.rehearsal.cut import Cut
from tests.workflow.run import ROOT, edit, planned, snakemake, workspace


@pytest.fixture(scope="module", params=sorted(CUTS))
def cut(request: pytest.FixtureRequest) -> Cut:
    return CUTS[request.param]


@pytest.fixture(scope="module")
def folder(cut: Cut, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset's own files, as a user has them."""
    place = tmp_path_factory.mktemp(cut.dataset)
    cut.write(place)
    return place


def test_the_reader_finds_every_caption_and_split(cut: Cut, folder: Path) -> None:
    reader = get_reader(cut.dataset)
    table = reader.read(folder, reader.rules({}))
    validate(table, cut.dataset)
    assert count(table) == cut.counts
    splits = dict(zip(table["clip_id"], table["split"], strict=True))
    assert splits == {film.clip_id: film.split for film in cut.films}
    index = VideoIndex(folder)
    found = {clip: index.find(stems) for clip, stems in stems_of_clips(table).items()}
    assert found == {film.clip_id: film.file for film in cut.films}


def test_every_sound_file_has_frames(cut: Cut, folder: Path) -> None:
    for film in cut.films:
        if film.usable and film.number < 9 and film.file:
            clip = decode_clip(Request(str(folder / film.file), "released", 4))
            assert clip.bad_packets == 0, film
            assert clip.n_frames / clip.fps == pytest.approx(film.duration, abs=0.1), film
            assert clip.frames.std() > 5, film


def test_check_names_what_is_missing_or_broken(
    cut: Cut, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    code = main(["check", cut.dataset, "--root", str(folder), "--full", "--json"])
    assert code == 3
    screen = capsys.readouterr()
    videos = json.loads(screen.out)["videos"]
    assert videos["missing"] == cut.missing
    assert videos["unreadable"] == cut.unreadable
    assert all(name in screen.err for name in (*cut.missing, *cut.unreadable))


def test_every_cut_has_something_to_lose_in_training_and_test(cut: Cut) -> None:
    lost = {film.split for film in cut.films if not film.usable}
    assert {"train", "test"} <= lost


def test_only_what_stands_in_the_cut_is_trained(cut: Cut, tmp_path: Path) -> None:
    workspace(tmp_path)
    cut.configure(tmp_path, "0" * 64)
    experiments = Experiments.load(folder=tmp_path / "config")
    rows = {row.row: row.run for row in experiments.rows(cut.dataset, cut.table) if row.run}
    assert set(rows) == set(cut.provenance)
    for run in rows.values():
        assert (run.settings.frames, run.settings.words) == (cut.frames, cut.words)
    backbones = {run.settings.backbone for run in experiments.runs(cut.dataset).values()}
    assert backbones == {"vit-b32"}


def test_only_31_seconds_of_a_long_didemo_video_are_read(tmp_path: Path) -> None:
    (film,) = (film for film in didemo.CUT.films if film.clip_id == didemo.LONG)
    film.write(tmp_path)
    assert film.file is not None
    clip = decode_clip(Request(str(tmp_path / film.file), "released", 32, 0.0, 31.0))
    assert film.duration == 36
    assert 29 < clip.timestamp.max() <= 31


def test_allowing_missing_videos_does_not_plan_the_check_alone(tmp_path: Path) -> None:
    sound = [dataclasses.replace(film, damage=None) for film in CUTS["lsmdc"].films]
    lsmdc = dataclasses.replace(CUTS["lsmdc"], films=sound)
    workspace(tmp_path)
    lsmdc.write(tmp_path / "data" / "lsmdc")
    for name in ("ViT-B-32.pt", "llava-next/config.json"):  # the check asks for no more
        path = tmp_path / "weights" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    lsmdc.configure(tmp_path, "0" * 64)
    found = snakemake(tmp_path, "resources/lsmdc/annotations.parquet")
    assert found.returncode == 0, found.stdout[-2000:]

    edit(tmp_path / "config" / "config.yaml", lambda content: content.update(allow_missing=True))
    jobs = planned(snakemake(tmp_path, lsmdc.target, "-n").stdout)
    assert (jobs["clips"], jobs["train"], jobs["features"], jobs["table"]) == (1, 3, 4, 1)
