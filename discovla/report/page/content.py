"""What a dataset's results folder holds, gathered for the page; what is damaged is named on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from discovla.captioning.table import CaptionTable
from discovla.data.checks.page import Line, count_rows, findings, headline
from discovla.data.store import FrameStore
from discovla.errors import UserError
from discovla.experiments import PAPER_BACKBONE, Experiments
from discovla.report.captions import ShownClip, captions_beside, first_captions, shown_clip
from discovla.report.figures import Figure
from discovla.report.gallery import Gallery, build_gallery
from discovla.report.page import work
from discovla.report.page.curves import curve_picture, described, read_curve
from discovla.report.page.media import file_address
from discovla.report.page.tables import TableView, view
from discovla.report.parts import reported
from discovla.report.tables import COLUMNS, Table, notes, read_table, to_frame
from discovla.storage.files import read_record

CURVES = 40
"""Runs whose curves are drawn; the page names the others."""
CLIPS, FRAMES = 3, 4
"""Clips whose pseudo captions are shown, and frames of each."""
MOVED = 10
"""Queries of a comparison that are written out, of either kind."""


@dataclass(frozen=True)
class FigureView:
    """One sweep with its picture and its numbers."""

    title: str
    picture: str
    statements: list[str]
    table: TableView


@dataclass(frozen=True)
class ComparisonView:
    """Rank changes between two rows of a table."""

    table: str
    before: str
    after: str
    picture: str
    nearer: pd.DataFrame
    away: pd.DataFrame
    counts: dict[str, int]
    path: str


@dataclass(frozen=True)
class CurveView:
    """The training of one run."""

    run_id: str
    rows: list[str]
    """Rows of tables and points of figures that it stands for."""
    picture: str
    text: str


@dataclass(frozen=True)
class CaptionsView:
    """Clips with their pseudo captions, a column for each table."""

    headings: list[str]
    counts: list[str]
    clips: list[ShownClip]


@dataclass
class Content:
    """All that the page shows; empty lists where there is nothing."""

    dataset: str
    title: str
    tables: list[TableView] = field(default_factory=list)
    figures: list[FigureView] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    """Tables and figures that the page is to have and that are not there."""
    comparisons: list[ComparisonView] = field(default_factory=list)
    galleries: list[Gallery] = field(default_factory=list)
    captions: list[CaptionsView] = field(default_factory=list)
    curves: list[CurveView] = field(default_factory=list)
    more_curves: list[str] = field(default_factory=list)
    check: dict[str, Any] | None = None
    stages: list[work.Stage] = field(default_factory=list)
    total: work.Stage | None = None
    costs: list[work.Cost] = field(default_factory=list)
    environment: work.Environment | None = None
    glance: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What could not be read."""


class Gatherer:
    """Reads one dataset's folders; every part stands alone, so that damage costs only its part.

    Args:
        experiments: what tables, rows and runs are.
        dataset: whose page it is.
        results, resources: folders of the workflow.
    """

    def __init__(
        self, experiments: Experiments, dataset: str, results: Path, resources: Path
    ) -> None:
        self.experiments, self.dataset = experiments, dataset
        self.folder, self.resources = results / dataset, resources / dataset
        self.annotations = self.resources / "annotations.parquet"
        self.content = Content(dataset, experiments.dataset(dataset)["title"])
        self.labels = work.run_labels(experiments, dataset)

    def gather(self) -> Content:
        """Everything, part by part."""
        parts: tuple[Callable[[], None], ...] = (
            self._tables,
            self._figures,
            self._comparisons,
            self._galleries,
            self._captions,
            self._curves,
            self._check,
            self._work,
        )
        for part in parts:
            with self._noted():
                part()
        self.content.glance = _glance(self.content)
        return self.content

    @contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            self.content.problems.append(str(error))

    def _tables(self) -> None:
        listed = reported(self.experiments, self.dataset)
        for name, spec in self.experiments.tables.items():
            path = self.folder / f"{name}.csv"
            with self._noted():
                if path.exists():
                    table = read_table(path, spec["title"], self.dataset)
                    self.content.tables.append(view(name, table, path, listed=name in listed))
                elif single := self._single_rows(name):
                    place = self.folder / name
                    self.content.tables.append(
                        view(name, single, place, listed=name in listed, made=False)
                    )
            if name in listed and not path.exists():
                self.content.absent.append(name)

    def _single_rows(self, name: str) -> Table | None:
        """Rows that were asked for one by one, where the whole table was not."""
        rows = []
        with self._noted():
            for row in self.experiments.rows(self.dataset, name):
                path = self.folder / name / f"{row.row}.json"
                if path.exists():
                    rows.append(read_record(path))
        if not rows:
            return None
        title = self.experiments.tables[name]["title"]
        frame = _frame(rows, self.folder / name)
        return Table(title, self.dataset, frame, notes(frame))

    def _figures(self) -> None:
        listed = reported(self.experiments, self.dataset)
        for name, spec in self.experiments.figures.items():
            path = self.folder / f"{name}.csv"
            if not path.exists():
                self.content.absent += [name] if name in listed else []
                continue
            with self._noted():
                table = read_table(path, spec["title"], self.dataset)
                figure = Figure(spec, self.dataset, table.frame)
                shown = view(name, table, path, listed=name in listed)
                self.content.figures.append(
                    FigureView(
                        f"{spec['title']}{_symbol(spec)}",
                        _picture(path),
                        figure.statements(),
                        shown,
                    )
                )

    def _comparisons(self) -> None:
        for path in sorted((self.folder / "compare").glob("*/*.csv")):
            before, _, after = path.stem.partition("..")
            table = path.parent.name
            with self._noted():
                frame = _changes(path)
                gained = frame["places_gained"]
                self.content.comparisons.append(
                    ComparisonView(
                        table,
                        self._label(table, before),
                        self._label(table, after),
                        _picture(path),
                        frame[gained > 0].head(MOVED),
                        frame[gained < 0].tail(MOVED)[::-1],
                        {
                            "nearer the top": int((gained > 0).sum()),
                            "away from it": int((gained < 0).sum()),
                            "unchanged": int((gained == 0).sum()),
                        },
                        str(path),
                    )
                )

    def _label(self, table: str, row: str) -> str:
        try:
            return self.experiments.row(self.dataset, table, row).label
        except UserError:  # a row that the configuration no longer has
            return row

    def _galleries(self) -> None:
        """Of the whole method, or of the first run that has features."""
        found: dict[str, Path] = {}
        for run_id, folder in work.seed_folders(self.folder):
            if (folder / "features.test.safetensors").exists():
                found.setdefault(run_id, folder)
        if not found:
            return
        whole = self._whole_method()
        run_id = whole if whole in found else next(iter(found))
        config = read_record(self.folder / "runs" / run_id / "config.json")
        frames = self.resources / "frames" / str(config["frames_id"])
        gallery = build_gallery(
            found[run_id] / "features.test.safetensors",
            self.annotations,
            frames if frames.exists() else None,
        )
        self.content.galleries.append(gallery)

    def _whole_method(self) -> str | None:
        if PAPER_BACKBONE not in self.experiments.dataset(self.dataset)["backbones"]:
            return None
        return self.experiments.resolve(self.dataset, "discovla", PAPER_BACKBONE, {}).run_id

    def _captions(self) -> None:
        shown = set()
        for path in sorted((self.folder / "captions").glob("*.parquet")):
            with self._noted():
                tables = captions_beside(path)
                frames_id = str(tables[0].metadata["frames_id"])
                frames = self.resources / "frames" / frames_id
                if frames_id in shown or not frames.exists():
                    continue
                shown.add(frames_id)
                self.content.captions.append(self._shown_captions(tables, frames))

    def _shown_captions(self, tables: list[CaptionTable], frames: Path) -> CaptionsView:
        store = FrameStore(frames, tables[0].metadata["frames_id"])
        rows = first_captions(self.annotations, store, tables[0], (), CLIPS)
        return CaptionsView(
            [str(table.metadata["kind"]) for table in tables],
            [_counted(table) for table in tables],
            [shown_clip(row, store, tables, FRAMES) for row in rows.itertuples()],
        )

    def _curves(self) -> None:
        runs: dict[str, dict[str, pd.DataFrame]] = {}
        for run_id, folder in work.seed_folders(self.folder):
            if (folder / "curve.csv").exists():
                with self._noted():
                    curve = read_curve(folder / "curve.csv")
                    runs.setdefault(run_id, {})[folder.name.removeprefix("seed")] = curve
        order = sorted(runs, key=work.by_row(self.labels))
        for run_id in order[:CURVES]:
            rows = self.labels.get(run_id, [])
            picture, text = curve_picture(runs[run_id]), described(runs[run_id])
            self.content.curves.append(CurveView(run_id, rows, picture, text))
        self.content.more_curves = order[CURVES:]

    def _check(self) -> None:
        path = self.folder / "check.json"
        if not path.exists():
            return
        report = read_record(path)
        try:
            self.content.check = {
                "headline": headline(report),
                "counts": count_rows(report),
                "findings": _without_home(findings(report, None)),
            }
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: of another version ({error!r}); make it again") from None

    def _work(self) -> None:
        content = self.content
        with self._noted():
            content.stages, content.total = work.stages(self.folder)
        content.costs, problems = work.costs(self.folder, self.labels)
        content.environment, more = work.environment(self.folder)
        content.problems += [*problems, *more]


def _without_home(found: list[tuple[str, list[Line]]]) -> list[tuple[str, list[Line]]]:
    """Paths below this folder without what lies above it: the page is for other eyes, too."""
    here = f"{Path.cwd()}/"
    return [
        (title, [(name, text.replace(here, "")) for name, text in lines]) for title, lines in found
    ]


def _symbol(spec: Mapping[str, Any]) -> str:
    """What the figure calls its parameter, where the title does not say it."""
    return "" if spec["symbol"] in spec["title"] else f" ({spec['symbol']})"


def _frame(rows: list[dict[str, Any]], folder: Path) -> pd.DataFrame:
    absent = [column for column in COLUMNS if any(column not in row for row in rows)]
    if absent:
        raise UserError(f"{folder}: rows without {absent[:3]}; make them again")
    return to_frame(rows)


def _picture(csv: Path) -> str:
    """The SVG, else the PNG, beside a CSV; empty where neither is there."""
    found = [csv.with_suffix(suffix) for suffix in (".svg", ".png")]
    return next((file_address(path) for path in found if path.exists()), "")


def _changes(path: Path) -> pd.DataFrame:
    try:
        frame = pd.read_csv(path, dtype={"caption": "string"}, keep_default_na=False)
        return frame.astype({"rank_before": float, "rank_after": float, "places_gained": float})
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: not a comparison of ranks ({error}); remove it") from None


def _counted(table: CaptionTable) -> str:
    counts = table.metadata.get("counts") or {}
    model = str(table.metadata.get("model") or "?").rstrip("/").rpartition("/")[2]
    names = {"rows": "captions", "ok": "of use at once"}
    parts = [f"{n:,} {names.get(name, name.replace('_', ' '))}" for name, n in counts.items()]
    return f"{table.metadata['kind']}, {model}: {', '.join(parts)}"


def _glance(content: Content) -> list[tuple[str, str]]:
    """The few facts that stand on top."""
    views = [*content.tables, *(figure.table for figure in content.figures)]
    facts: dict[str, dict[str, None]] = {"queries": {}, "seeds": {}, "data": {}}
    for shown in views:
        for line in shown.lines:
            for name, text in zip(shown.fact_names, line.facts, strict=True):
                if text and name in facts:
                    facts[name][text] = None
    seeds = sorted({int(seed) for text in facts["seeds"] for seed in text.split()})
    runs = {"trained": len(content.curves) + len(content.more_curves)}
    glance = [
        ("tables", str(sum(shown.made for shown in content.tables))),
        ("figures", str(len(content.figures))),
        ("trainings shown", str(runs["trained"])),
        ("seeds" if len(seeds) > 1 else "seed", ", ".join(map(str, seeds))),
        ("test queries", ", ".join(facts["queries"])),
        ("data id", ", ".join(facts["data"])),
        ("CPU time", content.total.cpu if content.total else ""),
        ("GPU hours", work.total(cost.gpu_hours for cost in content.costs)),
        ("GPU energy, kWh", work.total(cost.energy_kwh for cost in content.costs)),
    ]
    return [(name, text) for name, text in glance if text]
