"""What was run: stages, trainings, what they cost, and with which code and libraries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from discovla.errors import UserError
from discovla.experiments import Experiments
from discovla.report.page.tables import heading
from discovla.report.parts import reported
from discovla.report.summary import stage_times
from discovla.storage.files import read_record


@dataclass(frozen=True)
class Stage:
    """Sums over the jobs of one stage."""

    name: str
    jobs: int
    wall: str
    cpu: str
    memory: str


@dataclass(frozen=True)
class Cost:
    """What one training cost, over all its sessions."""

    run_id: str
    row: str
    """The first row or point that the run stands for."""
    seed: str
    wall: str
    gpu_hours: float | None
    """None on a CPU."""
    energy_kwh: float | None
    """Of the GPUs alone; None where the driver does not count it."""
    device: str


@dataclass(frozen=True)
class Environment:
    """Code and libraries that results were made with."""

    commits: list[tuple[str, int]]
    """Commit, or digest of the package, with the number of metrics files."""
    versions: list[tuple[str, str]]
    """Library and its version; several where results differ."""


def run_labels(experiments: Experiments, dataset: str) -> dict[str, list[str]]:
    """Run id → the rows that it stands for (`Table 5: LoRA`); those of the page come first.

    Tables come before figures: a row's label says more than a point of a sweep.
    """
    labels: dict[str, list[str]] = {}
    names = dict.fromkeys([*reported(experiments, dataset), *experiments.tables])
    names |= dict.fromkeys(experiments.figures)
    for name in sorted(names, key=lambda name: name in experiments.figures):
        try:
            rows = experiments.rows(dataset, name)
        except UserError:  # a table that does not fit this dataset
            continue
        for row in rows:
            if row.run is not None:
                labels.setdefault(row.run.run_id, []).append(f"{heading(name)}: {row.label}")
    return labels


def by_row(labels: Mapping[str, Sequence[str]]) -> Callable[[str], tuple[int, str]]:
    """A key that puts run ids in the order of their rows, those without one last."""
    places = {run_id: place for place, run_id in enumerate(labels)}
    return lambda run_id: (places.get(run_id, len(places)), run_id)


def seed_folders(folder: Path) -> Iterator[tuple[str, Path]]:
    """(run id, folder of a seed) of all runs of a dataset, runs by name and seeds by number."""
    found = [path for path in (folder / "runs").glob("*/seed*") if path.is_dir()]
    numbered = [(p.parent.name, p.name.removeprefix("seed"), p) for p in found]
    for run_id, seed, path in sorted(numbered, key=lambda item: (item[0], item[1].zfill(9))):
        if seed.isdigit():
            yield run_id, path


def stages(folder: Path) -> tuple[list[Stage], Stage | None]:
    """The stages of a dataset's benchmark files, and their sum."""
    times = stage_times(folder / "benchmarks")
    if times.empty:
        return [], None
    lines = [
        Stage(*(str(line.stage), int(line.jobs)), *_times(line.wall_s, line.cpu_s, line.peak_mb))
        for line in times.itertuples()
    ]
    wall, cpu = float(times["wall_s"].sum()), float(times["cpu_s"].sum())
    total = Stage(
        "all", int(times["jobs"].sum()), *_times(wall, cpu, float(times["peak_mb"].max()))
    )
    return lines, total


def _times(wall: float, cpu: float, memory: float) -> tuple[str, str, str]:
    return duration(wall), duration(cpu), "" if memory != memory else f"{memory:,.0f}"


def duration(seconds: float) -> str:
    """`42 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds != seconds:
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def costs(folder: Path, labels: Mapping[str, Sequence[str]]) -> tuple[list[Cost], list[str]]:
    """What trainings recorded in `cost.json`, in the order of their rows; what is not readable."""
    found, problems = [], []
    for run_id, path in seed_folders(folder):
        file = path / "cost.json"
        if not file.exists():
            continue
        try:
            values = read_record(file)
            found.append(
                Cost(
                    run_id,
                    next(iter(labels.get(run_id, ())), ""),
                    path.name.removeprefix("seed"),
                    duration(float(values["wall_seconds"])),
                    _scaled(values["gpu_seconds"], 3600),
                    _scaled(values["energy_joules"], 3.6e6),
                    str(values.get("device") or ""),
                )
            )
        except UserError as error:
            problems.append(str(error))
        except (KeyError, TypeError, ValueError) as error:
            problems.append(f"{file}: not a cost of this version ({error!r}); remove it")
    key = by_row(labels)
    return sorted(found, key=lambda cost: key(cost.run_id)), problems


def _scaled(value: float | None, unit: float) -> float | None:
    return None if value is None else float(value) / unit


def total(values: Iterable[float | None]) -> str:
    """The sum, as text; empty where nothing is known."""
    known = [value for value in values if value is not None]
    return f"{sum(known):,.2f}" if known else ""


def environment(folder: Path) -> tuple[Environment, list[str]]:
    """Code and libraries as the metrics files tell, and which of those could not be read."""
    commits: Counter[str] = Counter()
    versions: dict[str, dict[str, None]] = {}
    problems = []
    for _, path in seed_folders(folder):
        for file in sorted(path.glob("metrics.*.json")):
            try:
                found = read_record(file)
                code, used = found["code"], found["versions"]
                name = code["commit"] or f"package {code['package_sha'][:12]}"
                commits[f"{name}{' + changes' if code['dirty'] else ''}"] += 1
            except UserError as error:
                problems.append(str(error))
                continue
            except (KeyError, TypeError):
                problems.append(f"{file}: not a metrics file of this version; remove it")
                continue
            for library, version in used.items():
                versions.setdefault(library, {})[version or "not installed"] = None
    lines = [(library, ", ".join(found)) for library, found in versions.items()]
    return Environment(commits.most_common(), lines), problems
