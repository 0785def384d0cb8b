"""Ranks of single queries and their changes, against counting by hand."""

from __future__ import annotations

import shutil
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from discovla.errors import UserError
from discovla.report.rank_changes import (
    COLUMNS,
    RankChanges,
    build_rank_changes,
    write_rank_changes,
)
from discovla.report.tables import TEST_BEST
from discovla.retrieval.evaluate import evaluate_features
from discovla.retrieval.ranked import rank_queries
from discovla.retrieval.rows import read_rows, write_rows
from discovla.retrieval.stored import read_features
from discovla.storage.files import read_json
from discovla.storage.tensors import save_tensors
from discovla.verify import verify
from tests.report import results
from tests.report.results import DATASET, HOSTILE, World
from tests.report.test_captions import texts_of


def naive_ranks(path: Path) -> list[float]:
    """Rank of every query's own video by sorting one line of scores at a time."""
    tensors = load_file(path)
    found = []
    for text, own in zip(tensors["text"], tensors["truth"], strict=True):
        scores = [float(text @ video) for video in tensors["video"]]
        found.append(1.0 + sum(score > scores[own] for score in scores))
    return found


def test_ranks_are_those_of_the_metrics(world: World) -> None:
    path = world.seed_folder("lora", 0) / "features.test.safetensors"
    ranking = rank_queries(path)
    assert ranking.ranks.tolist() == naive_ranks(path)
    metrics = read_json(path.parent / "metrics.none.json")
    assert ranking.ranks.mean() == pytest.approx(metrics["t2v"]["MnR"])
    assert 100 * np.mean(ranking.ranks < 6) == pytest.approx(metrics["t2v"]["R@5"])
    for query in range(results.CLIPS):
        best = ranking.best(query, 3)
        assert ranking.scores[query][best].tolist() == sorted(ranking.scores[query])[:-4:-1]


@pytest.mark.parametrize("post", ["dsl", "qbnorm"])
def test_ranks_after_post_processing(world: World, tmp_path: Path, post: str) -> None:
    features, bank = (tmp_path / f"features.{split}.safetensors" for split in ("test", "bank"))
    results.write_features(features, "run", 3, annotations_id="b")
    # A bank is of the same run and seed; its texts are others.
    results.write_features(bank, "run", 4, annotations_id="b")
    tensors = {"text": torch.from_numpy(load_file(bank)["text"])}
    save_tensors(bank, tensors, {**read_features(features).metadata, "split": "bank"})
    options = {"bank_path": bank} if post == "qbnorm" else {}
    ranking = rank_queries(features, post=post, **options)
    measured = evaluate_features(features, post=post, **options)
    assert ranking.ranks.mean() == pytest.approx(measured["t2v"]["MnR"])
    assert 100 * np.mean(ranking.ranks < 2) == pytest.approx(measured["t2v"]["R@1"])


def test_ids_that_are_not_those_of_the_features(tmp_path: Path) -> None:
    path = tmp_path / "features.test.safetensors"
    results.write_features(path, "run", 0)
    features = read_features(path)
    write_rows(path, read_rows(features).iloc[1:], features.metadata)
    with pytest.raises(UserError, match="13 rows of text, 14 features"):
        rank_queries(path)


def test_changes_are_means_over_seeds(world: World) -> None:
    changes = results.rank_changes(world)
    frame = changes.frame.set_index("caption_id")
    for name, row in (("before", "lora"), ("after", "discovla")):
        paths = [world.seed_folder(row, s) / "features.test.safetensors" for s in results.SEEDS]
        ranks = np.array([naive_ranks(path) for path in paths])
        for number in range(results.CLIPS):
            line = frame.loc[f"test{number}#0"]
            assert line[f"rank_{name}"] == ranks[:, number].mean()
            assert line[f"ranks_{name}"] == " ".join(f"{r:g}" for r in ranks[:, number])
    assert frame["places_gained"].tolist() == sorted(frame["places_gained"], reverse=True)
    assert frame.loc["test0#0", "caption"] == HOSTILE
    assert sum(changes.counts().values()) == results.CLIPS
    assert changes.seeds == (2, 2)


def test_a_chosen_checkpoint_is_ranked_by_its_own_features(world: World, tmp_path: Path) -> None:
    """Not by those of the last step under its label."""
    row = world.experiments.row(DATASET, "selection", "test-best")
    chosen = []
    for seed in results.SEEDS:
        folder = tmp_path / f"{DATASET}/runs/{row.run.run_id}/seed{seed}"
        for number, name in enumerate(("epoch1", "last")):
            path = folder / "epochs" / f"{name}.test.safetensors"
            results.write_features(path, row.run.run_id, 10 * seed + number)
        shutil.copytree(folder / "epochs", folder, dirs_exist_ok=True)
        for path in folder.glob("last.test.*"):
            path.rename(folder / path.name.replace("last", "features"))
        lines = [{"checkpoint": "epoch1", "chosen_by": "test_best"}, {"checkpoint": "last"}]
        pd.DataFrame(lines).to_csv(folder / "selection.csv", index=False)
        chosen.append(naive_ranks(folder / "epochs" / "epoch1.test.safetensors"))
    changes = build_rank_changes(
        *(world.experiments, DATASET, "selection", "last", "test-best"),
        results=tmp_path,
        resources=world.resources,
    )
    frame = changes.frame.set_index("caption_id")
    for number in range(results.CLIPS):
        ranks = [ranking[number] for ranking in chosen]
        assert frame.loc[f"test{number}#0", "rank_after"] == np.mean(ranks)
    assert (frame["rank_before"] != frame["rank_after"]).any()
    assert changes.notes == (f"DiscoVLA, best on test: {TEST_BEST}",)
    write_rank_changes(changes, tmp_path / "c.csv", [str(tmp_path / "c.svg")])
    assert TEST_BEST in " ".join(texts_of(tmp_path / "c.svg").split())


def test_a_row_that_no_seed_changes_is_compared_with_all_seeds(world: World) -> None:
    changes = results.rank_changes(world, before="zero-shot")
    assert changes.seeds == (1, 2)
    assert not changes.frame["ranks_before"].str.contains(" ").any()


def test_queries_that_cross_a_cut() -> None:
    ranks = {"rank_before": [1, 5.5, 6, 11, 12, 3], "rank_after": [2, 6.0, 5, 1, 12, 40]}
    frame = pd.DataFrame(ranks).assign(places_gained=lambda f: f["rank_before"] - f["rank_after"])
    changes = RankChanges("t", "d", "a", "b", (1, 1), frame)
    # A tied query at 5.5 stands within the first 5, as R@5 counts it.
    assert changes.crossings() == {1: (1, 1), 5: (2, 2), 10: (1, 1)}
    assert changes.counts() == {"nearer": 2, "away": 3, "unchanged": 1}


def test_files_of_a_comparison(world: World, tmp_path: Path) -> None:
    changes = results.rank_changes(world)
    csv, first, second, png = (tmp_path / n for n in ("c.csv", "1.svg", "2.svg", "3.png"))
    write_rank_changes(changes, csv, [str(first), str(second), str(png)])
    assert first.read_bytes() == second.read_bytes()
    assert Image.open(png).size[0] > 1500
    frame = pd.read_csv(csv)
    assert list(frame) == COLUMNS
    kept = tmp_path / "compare" / "table5" / csv.name
    kept.parent.mkdir(parents=True)
    csv.rename(kept)
    assert verify(kept) == f"ranks of {results.CLIPS} queries in two rows"
    assert len(frame) == results.CLIPS
    said = " ".join(texts_of(first).split())
    assert f"nearer {changes.counts()['nearer']} (" in said
    assert "LoRA → DiscoVLA" in said
    assert not list(ET.parse(first).iter("{http://www.w3.org/2000/svg}script"))


def test_rows_that_cannot_be_compared(world: World) -> None:
    with pytest.raises(UserError, match="table5/b1: only quoted from the paper"):
        results.rank_changes(world, after="b1")
    with pytest.raises(UserError, match="no row 'b9'"):
        results.rank_changes(world, after="b9")


def test_other_data_are_refused(tmp_path: Path) -> None:
    other = results.World(tmp_path, results.experiments())
    for row, data_id in (("lora", "a" * 10), ("discovla", "b" * 10)):
        for seed in results.SEEDS:
            path = other.seed_folder(row, seed) / "features.test.safetensors"
            results.write_features(path, other.run(row).run_id, seed, data_id=data_id)
    with pytest.raises(UserError, match=rf"{DATASET}/table5/discovla: measured on other data"):
        results.rank_changes(other)
