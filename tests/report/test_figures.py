"""Figures: one point per value of the grid, the same bytes for the same numbers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from PIL import Image

from discovla.experiments import Experiments
from discovla.report.figures import build_figure, write_figure
from discovla.storage.files import write_json
from tests.report.test_captions import texts_of
from tests.report.test_tables import metrics, metrics_files


def test_points_follow_the_grid(tmp_path: Path) -> None:
    experiments = Experiments.load()
    rows = experiments.rows("msrvtt", "figure6")
    for row in rows:
        for path in metrics_files(experiments, row, tmp_path):
            write_json(path, metrics(row.run.run_id, 42))
    figure = build_figure(experiments, "msrvtt", "figure6", tmp_path)
    first, second = tmp_path / "one.svg", tmp_path / "two.svg"
    write_figure(figure, csv=str(tmp_path / "figure6.csv"), pictures=[str(first)])
    write_figure(figure, csv=str(tmp_path / "figure6.csv"), pictures=[str(second)])
    assert first.read_bytes() == second.read_bytes()
    frame = pd.read_csv(tmp_path / "figure6.csv")
    assert list(frame["value"]) == [0, 0.1, 0.3, 0.5, 1]
    assert set(frame["parameter"]) == {"alpha"}
    assert b"<svg" in first.read_bytes()


def test_what_the_paper_says_is_marked(tmp_path: Path) -> None:
    experiments = Experiments.load()
    for dataset, printed in (("msrvtt", True), ("demo", False)):
        for row in experiments.rows(dataset, "figure7"):
            for path in metrics_files(experiments, row, tmp_path):
                write_json(path, metrics(row.run.run_id, 42))
        figure = build_figure(experiments, dataset, "figure7", tmp_path)
        svg, png = tmp_path / f"{dataset}.svg", tmp_path / f"{dataset}.png"
        write_figure(figure, csv=str(tmp_path / "f.csv"), pictures=[str(svg), str(png)])
        said = " ".join(texts_of(svg).split())
        assert "best in the paper: 1" in said
        # Its numbers hold for its own dataset only.
        assert ("DiscoVLA as printed" in said) == ("202.8" in said) == printed
        assert "The distillation loss does not change R@1" in said
        assert "The paper prints a curve without numbers" in said
        assert Image.open(png).size[0] > 1500
