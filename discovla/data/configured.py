"""The data check as config/ describes it: the dataset's entry, its folder, its runs' weights."""

from __future__ import annotations

from typing import Any

from discovla.data.check import check_dataset, judge
from discovla.data.requirements import Weights, backbone_weights, captioner_weights
from discovla.experiments import Experiments


def check_configured(
    experiments: Experiments, dataset: str, *, root: str | None = None, full: bool = False
) -> dict[str, Any]:
    """`check_dataset` for a dataset of config/datasets; `root` replaces the configured folder."""
    entry = experiments.dataset(dataset)
    return check_dataset(
        dataset,
        entry["reader"],
        root or experiments.root(dataset),
        rules=entry["rules"],
        expected=entry["expected"],
        weights=needed_weights(experiments, dataset),
        full=full,
        timeout=experiments.config["decode_timeout"],
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
    """What is known of the weights of every run of a dataset."""
    runs = experiments.runs(dataset).values()
    backbones = {run.settings.backbone: run.backbone for run in runs}
    captioners = {
        run.settings.captioner
        for run in runs
        if run.captions_id and run.settings.captions != "released"
    }
    return [
        *(backbone_weights(name, entry) for name, entry in sorted(backbones.items())),
        *(captioner_weights(name, experiments.captioner(name)) for name in sorted(captioners)),
    ]
