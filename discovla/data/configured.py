"""The data check as config/ describes it: a dataset's entry, its folder, and what its runs need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from discovla.captioning.prompt import PROMPTS
from discovla.config import load_checked
from discovla.data.check import check_dataset, judge
from discovla.data.checks.captions import Limit
from discovla.data.checks.videos import Look
from discovla.data.checks.work import Captions, Frames, Plan, Training
from discovla.data.estimate import CaptionerShape, Card
from discovla.data.requirements import Weights, backbone_weights, captioner_weights
from discovla.experiments import Experiments, Run

LOCAL_MODEL = "local-dir:"
"""Prefix of an architecture that is a folder; its tokenizer's merges lie there too."""
MERGES = "bpe.txt.gz"
Need = tuple[Run, tuple[str, ...]]
"""A run and the tables and figures that show it."""


def check_configured(
    experiments: Experiments,
    dataset: str,
    *,
    root: str | None = None,
    full: bool = False,
    jobs: int = 1,
) -> dict[str, Any]:
    """`check_dataset` for a dataset of config/datasets; `root` replaces the configured folder."""
    entry = experiments.dataset(dataset)
    plan = plan_of(experiments, dataset)
    return check_dataset(
        dataset,
        entry["reader"],
        root or experiments.root(dataset),
        rules=entry["rules"],
        expected=entry.get("expected", {}),
        weights=needed_weights(experiments, dataset),
        plan=plan,
        look=Look(
            full=full,
            jobs=jobs,
            timeout=experiments.config["decode_timeout"],
            frames=max((item.frames for item in plan.frames), default=1),
            sampling=plan.sampling,
            candidate_fps=plan.candidate_fps,
        ),
    )


def judge_configured(
    experiments: Experiments,
    report: dict[str, Any],
    *,
    root: str | None = None,
    allow_missing: bool | None = None,
) -> dict[str, Any]:
    """`judge` with the place of the setting that names the folder; None = as configured."""
    dataset = report["dataset"]
    if root:
        where = "--root"
    elif "root" in experiments.dataset(dataset):
        where = f"{experiments.folder}/datasets/{dataset}.yaml: root"
    else:
        where = f"{experiments.folder}/config.yaml: data.{dataset}"
    allowed = experiments.config["allow_missing"] if allow_missing is None else allow_missing
    return judge(report, where=where, allow_missing=allowed)


def needed_weights(experiments: Experiments, dataset: str) -> list[Weights]:
    """What is known of the weights of every run of a dataset, and which tables need them."""
    runs = experiments.runs(dataset).values()
    shown = needs(experiments, dataset)
    backbones = {run.settings.backbone: run.backbone for run in runs}
    captioners = {run.settings.captioner for run in runs if _is_written(run)}
    captioners -= {n for n in captioners if experiments.captioner(n).get("engine") == "server"}
    return [
        *(
            replace(
                backbone_weights(name, entry),
                needed_by=_tables(need for need in shown if need[0].settings.backbone == name),
            )
            for name, entry in sorted(backbones.items())
        ),
        *(
            replace(
                captioner_weights(name, experiments.captioner(name)),
                needed_by=_tables(
                    need
                    for need in shown
                    if _is_written(need[0]) and need[0].settings.captioner == name
                ),
            )
            for name in sorted(captioners)
        ),
    ]


def needs(experiments: Experiments, dataset: str) -> list[Need]:
    """The runs of the tables and figures that the paper prints for a dataset, each once."""
    found: dict[str, tuple[Run, dict[str, None]]] = {}
    for table in experiments.targets(dataset):
        for row in experiments.rows(dataset, table):
            if row.run is not None:
                _, tables = found.setdefault(row.run.run_id, (row.run, {}))
                tables[table] = None
    return [(run, tuple(tables)) for run, tables in found.values()]


def plan_of(experiments: Experiments, dataset: str) -> Plan:
    """The work that a dataset's tables and figures ask for."""
    shown = needs(experiments, dataset)
    estimate = load_checked(Path(experiments.folder) / "estimate.yaml", "estimate")
    size = estimate["frame_size"].get(dataset, estimate["frame_size"]["default"])
    settings = [run.settings for run, _ in shown]
    return Plan(
        limits=tuple(dict.fromkeys(_limit(run) for run, _ in shown)),
        frames=_frames(shown),
        captions=_captions(experiments, shown, estimate["captioners"]),
        trainings=tuple(_training(need) for need in shown if need[0].trains),
        seeds=len(experiments.seeds(dataset)),
        card=Card(**estimate["card"]),
        assumed_size=(size[0], size[1]),
        sampling=settings[0].sampling if settings else "released",
        candidate_fps=settings[0].sampling_fps if settings else 1.0,
    )


def _is_written(run: Run) -> bool:
    """Whether a captioner has to write this run's pseudo captions."""
    return run.captions_id is not None and run.settings.captions != "released"


def _tables(shown: Iterable[Need]) -> tuple[str, ...]:
    return tuple(sorted({table for _, tables in shown for table in tables}))


def _limit(run: Run) -> Limit:
    architecture = str(run.backbone["architecture"])
    merges = None
    if architecture.startswith(LOCAL_MODEL):
        path = Path(architecture.removeprefix(LOCAL_MODEL)) / MERGES
        merges = str(path) if path.is_file() else None
    return Limit(run.settings.words, merges)


def _frames(shown: list[Need]) -> tuple[Frames, ...]:
    settings = {run.frames_id: run.settings for run, _ in shown}
    return tuple(
        Frames(
            frames_id,
            found.frames,
            encoding={
                "encoding": found.frame_encoding,
                "quality": found.frame_quality,
                "short_side": found.frame_short_side,
                "limit_gb": found.frame_limit_gb,
            },
            tables=_tables(need for need in shown if need[0].frames_id == frames_id),
        )
        for frames_id, found in settings.items()
    )


def _captions(
    experiments: Experiments, shown: list[Need], shapes: Mapping[str, Any]
) -> tuple[Captions, ...]:
    runs = {str(run.captions_id): run for run, _ in shown if _is_written(run)}
    return tuple(
        Captions(
            captions_id=captions_id,
            frames_id=run.frames_id,
            kind=run.settings.captions,
            prompt=PROMPTS[run.settings.captions],
            captioner=run.settings.captioner,
            answer=experiments.longest_answer(run.settings),
            shape=_shape(shapes, run.settings.captioner),
            tables=_tables(need for need in shown if need[0].captions_id == captions_id),
        )
        for captions_id, run in runs.items()
    )


def _shape(shapes: Mapping[str, Any], captioner: str) -> CaptionerShape | None:
    return CaptionerShape.of(shapes[captioner]) if captioner in shapes else None


def _training(need: Need) -> Training:
    run, tables = need
    return Training(
        run_id=run.run_id,
        batch_size=run.settings.batch_size,
        epochs=run.settings.epochs,
        max_steps=run.settings.max_steps,
        first_caption_only=run.settings.train_captions == "first",
        tables=tables,
    )
