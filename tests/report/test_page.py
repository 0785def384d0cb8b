"""The report page: what it says, what it escapes, and what damage does to it."""

from __future__ import annotations

import itertools
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from discovla.cli import main
from discovla.errors import UserError
from discovla.report.page.content import Gatherer
from discovla.report.page.render import write_report
from discovla.report.page.work import duration
from discovla.report.tables import build_row
from discovla.storage.files import read_record, write_json
from tests.report import results
from tests.report.results import DATASET, HOSTILE, World

OUTSIDE = re.compile(r"""(?:https?:)?//[a-z]|url\(|@import|<(?:iframe|object|embed|form|base)\b""")


class Reader(HTMLParser):
    """Collects tags with their attributes, and the text that a reader sees."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._inside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("style", "script"):
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("style", "script"):
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.text.append(data)


def read(path: Path) -> tuple[Reader, str]:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader, " ".join(" ".join(reader.text).split())


@pytest.fixture
def damaged(world: World, tmp_path: Path) -> World:
    """A copy that a test may change."""
    shutil.copytree(world.folder, tmp_path / "copy")
    return World(tmp_path / "copy", world.experiments)


def render(world: World) -> tuple[list[str], str]:
    path = world.folder / "report.html"
    places = {"results": world.results, "resources": world.resources}
    problems = write_report(world.experiments, DATASET, path, **places)
    return problems, read(path)[1]


def test_every_part_is_there(world: World, page: Path) -> None:
    reader, text = read(page)
    for part in (
        "Tables",
        "Figures",
        "Rank changes per query",
        "Best and worst retrievals",
        "Pseudo captions",
        "Training curves",
        "Data check",
        "Time and cost",
        "Code and libraries",
    ):
        assert part in text
    runs = len({path.parents[1] for path in world.results.rglob("curve.csv")})
    names = [attributes.get("src", "") or "" for tag, attributes in reader.tags if tag == "img"]
    assert sum(name.startswith("data:image/svg+xml;base64,") for name in names) == 2 + runs
    assert sum(name.startswith("data:image/jpeg;base64,") for name in names) == 8 * 4 + 2 * 4
    assert "none recorded" in text
    assert "Not made yet: table1 , table6" in text
    assert page.stat().st_size < 1_000_000


def test_numbers_are_those_of_the_rows(world: World, page: Path) -> None:
    text = read(page)[1]
    line = build_row(
        world.experiments, world.experiments.row(DATASET, "table5", "discovla"), world.results
    )
    shown = f"{line['t2v_R@1']:.1f} ± {line['t2v_R@1_std']:.1f} paper [47.0]"
    difference = f"{line['t2v_R@1_diff']:+.1f}".replace("-", "−")
    assert f"{shown} {difference}" in text
    assert "B1 (IVFusion) quoted" in text
    assert "paper [46.5]" in text
    assert "The printed 0.54 M leaves no room for the text adapters" in text
    assert line["run_id"] in text


def test_no_difference_has_a_colour_of_its_own(page: Path) -> None:
    source = page.read_text(encoding="utf-8")
    style = source[source.index("<style>") : source.index("</style>")]
    assert ".difference" not in style
    assert not re.search(r"\b(green|red)\b", style)


def test_texts_are_escaped_everywhere(page: Path) -> None:
    reader, text = read(page)
    assert text.count("<img src=x onerror=") >= 4  # gallery, comparison, captions, their headings
    assert not any(name.startswith("on") for _, attributes in reader.tags for name in attributes)
    assert sum(tag == "script" for tag, _ in reader.tags) == 1
    assert not any(tag == "b" for tag, _ in reader.tags)
    assert HOSTILE not in page.read_text(encoding="utf-8")


def test_nothing_is_fetched(page: Path) -> None:
    reader, _ = read(page)
    places = [a.get(n) for _, a in reader.tags for n in ("src", "href") if a.get(n)]
    assert all(place.startswith(("data:", "#")) for place in places), places
    source = re.sub(r'"data:[^"]*"', '""', page.read_text(encoding="utf-8"))
    assert not OUTSIDE.search(source), OUTSIDE.search(source)
    policy = next(a["content"] for _, a in reader.tags if a.get("http-equiv"))
    assert (policy or "").startswith("default-src 'none'")


def test_the_same_results_give_the_same_page(world: World, page: Path, tmp_path: Path) -> None:
    places = {"results": world.results, "resources": world.resources}
    write_report(world.experiments, DATASET, tmp_path / "again.html", **places)
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_ids_and_headings_are_in_order(page: Path) -> None:
    reader, _ = read(page)
    ids = [a["id"] for _, a in reader.tags if "id" in a]
    assert len(ids) == len(set(ids))
    links = {a["href"] for t, a in reader.tags if t == "a" and (a["href"] or "").startswith("#")}
    assert {link.removeprefix("#") for link in links if link} <= set(ids)
    levels = [int(tag[1]) for tag, _ in reader.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_what_is_not_asked_for_is_shown_and_marked(damaged: World) -> None:
    place = damaged.results / DATASET
    for suffix in ("csv", "md", "tex"):
        (place / f"table5.{suffix}").rename(place / f"table2.{suffix}")
    _, text = render(damaged)
    assert "Table 2: Comparisons" in text
    assert "Found on disk; this page did not ask for it" in text


def test_single_rows_where_the_table_is_not_made(damaged: World) -> None:
    place = damaged.results / DATASET
    (place / "table5.csv").unlink()
    row = damaged.experiments.row(DATASET, "table5", "lora")
    write_json(place / "table5" / "lora.json", build_row(damaged.experiments, row, damaged.results))
    problems, text = render(damaged)
    assert problems == []
    assert "Only single rows of this table have been made." in text
    assert "paper [43.7]" in text


def test_costs_of_trainings(damaged: World) -> None:
    for seed, gpu in zip(results.SEEDS, (4500.0, None), strict=True):
        cost = {"wall_seconds": 4600.0, "gpu_seconds": gpu, "energy_joules": gpu and 1.8e6}
        write_json(damaged.seed_folder("lora", seed) / "cost.json", {"device": "a card", **cost})
    _, text = render(damaged)
    name = f"Table 1: LoRA {damaged.run('lora').run_id}"
    assert f"{name} 0 1 h 16 min 1.25 0.50 a card {name} 1 1 h 16 min a card" in text
    assert "GPU hours 1.25 GPU energy, kWh 0.50" in text
    write_json(damaged.seed_folder("lora", 1) / "cost.json", {"hours": 3})
    problems, _ = render(damaged)
    assert len(problems) == 1
    assert "cost.json: not a cost of this version" in problems[0]


def test_costs_without_a_gpu_have_no_columns_for_one(damaged: World) -> None:
    runs = {row: damaged.run(row) for row in ("discovla", "lora")}
    for row in runs:
        cost = {"wall_seconds": 60.0, "gpu_seconds": None, "energy_joules": None, "device": "cpu"}
        write_json(damaged.seed_folder(row, 0) / "cost.json", cost)
    _, text = render(damaged)
    assert "none used a GPU" in text
    assert "GPU hours" not in text
    lines = [
        f"Table 1: LoRA {runs['lora'].run_id} 0",
        f"Table 1: DiscoVLA {runs['discovla'].run_id} 0",
    ]
    assert text.index(lines[0]) < text.index(lines[1])  # as in the table, not by id


def test_it_says_what_the_numbers_are(world: World, page: Path, tmp_path: Path) -> None:
    text = read(page)[1]
    assert "Measured on MSRVTT" in text
    assert "the difference measured − printed" in text
    assert "The paper prints no number" not in text
    own = tmp_path / "results" / "demo"
    own.mkdir(parents=True)
    frame = pd.read_csv(world.results / DATASET / "table5.csv")
    printed = [column for column in frame if column.endswith(("_paper", "_diff"))]
    frame[printed] = None
    frame[frame["provenance"] != "quoted"].to_csv(own / "table5.csv", index=False)
    places = {"results": tmp_path / "results", "resources": tmp_path / "resources"}
    write_report(results.experiments(), "demo", tmp_path / "page.html", **places)
    text = read(tmp_path / "page.html")[1]
    assert "Measured on Demo world" in text
    assert "The paper prints no number for this dataset" in text
    assert "In brackets" not in text


def test_paths_begin_in_the_folder_of_the_project(damaged: World) -> None:
    path = damaged.results / DATASET / "check.json"
    report = read_record(path)
    source = str(Path.cwd() / "data" / "weights.safetensors")
    report["weights"] = [
        {"name": "CLIP", "source": source, "status": "present", "needed_by": ["table5"]}
    ]
    write_json(path, report)
    _, text = render(damaged)
    assert "CLIP: data/weights.safetensors" in text
    assert str(Path.cwd()) not in text


DAMAGE = {
    "table5.csv": ("table,row\n1,2\n", "table5.csv: not a table of this version"),
    "figure7.csv": ("", "figure7.csv: not a table of this version"),
    "check.json": ("{}", "check.json: of another version"),
    "compare/table5/lora..discovla.csv": ("a\n1\n", "not a comparison of ranks"),
    "runs/{lora}/seed0/curve.csv": ("step,lr\n", "curve.csv: not a training curve"),
    "runs/{lora}/seed0/metrics.none.json": ("{", "metrics.none.json: not valid JSON"),
    "runs/{lora}/seed0/cost.json": ("{", "cost.json: not valid JSON"),
    "runs/{discovla}/seed0/features.test.safetensors": ("x", "features.test.safetensors: damaged"),
    "captions/{captions}.parquet": ("PAR1", "{captions}.parquet: "),
    "benchmarks/train/a.tsv": ("", "a.tsv: not a benchmark file"),
}


def test_what_is_damaged_is_named_and_the_rest_is_shown(damaged: World) -> None:
    ids = {row: damaged.run(row).run_id for row in ("lora", "discovla")}
    ids["captions"] = damaged.run("discovla").captions_id
    for name, (content, _) in DAMAGE.items():
        path = damaged.results / DATASET / name.format(**ids)
        assert path.exists() or path.name == "cost.json"
        path.write_text(content)
    problems, text = render(damaged)
    for _, message in DAMAGE.values():
        found = [problem for problem in problems if message.format(**ids) in problem]
        assert len(found) == 1, message
        assert " ".join(found[0].split()) in text
    assert len(problems) == len(DAMAGE)
    assert "Could not be read" in text
    assert "Training curves" in text
    assert "Code and libraries" in text


def test_a_dataset_with_nothing_yet(tmp_path: Path) -> None:
    places = {"results": tmp_path / "results", "resources": tmp_path / "resources"}
    experiments = results.experiments()
    assert write_report(experiments, "lsmdc", tmp_path / "page.html", **places) == []
    text = read(tmp_path / "page.html")[1]
    assert "Not made yet: table2" in text
    assert "snakemake results/lsmdc/table2.csv" in text
    with pytest.raises(UserError, match="no dataset 'nowhere'"):
        Gatherer(experiments, "nowhere", places["results"], places["resources"])


def test_command(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert main(["report", "lsmdc", "--output", str(tmp_path / "a" / "page.html")]) == 0
    assert (tmp_path / "a" / "page.html").exists()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (3599.6, "1 h 0 min"), (7800, "2 h 10 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
