"""Is everything there? All that is missing comes in one message, before anything runs for hours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from discovla.data.annotations import Reader, data_id, get_reader
from discovla.data.annotations.base import count
from discovla.data.checks.captions import caption_facts
from discovla.data.checks.effect import describe_effect, effect_of
from discovla.data.checks.videos import Look, look_at_videos
from discovla.data.checks.work import Plan, work_ahead
from discovla.data.clips import VideoIndex
from discovla.data.requirements import Weights
from discovla.errors import CheckFailed, UserError

SHOWN = 5
Expected = Mapping[str, Mapping[str, int]]


def check_dataset(
    dataset: str,
    reader: str,
    root: str | Path,
    *,
    rules: Mapping[str, Any],
    expected: Expected,
    weights: Sequence[Weights] = (),
    plan: Plan | None = None,
    look: Look | None = None,
) -> dict[str, Any]:
    """Look at a dataset's files, captions and videos and at the weights its runs need.

    Args:
        dataset: its name.
        reader: the annotation reader.
        root: folder with its files.
        rules: the reader's rules.
        expected: published clips and captions of each split; {} for a dataset of one's own.
        weights: what is known of the weights.
        plan: what the runs need.
        look: how closely the videos are looked at.

    Returns:
        A report without times of day, so that equal data give equal bytes: `files` missing,
        `counts`, `expected` and where they differ (`differs`), `weights`, `captions` (see
        `caption_facts`), `videos` (`look_at_videos`), `effect` of what is absent (`effect_of`),
        `work` ahead (`work_ahead`: of what is there, or of all while nothing is), and `data_id`.
        Without annotation files there are no counts, and what follows from them is null.

    Raises:
        UserError: an annotation file is there but bad; it names file and row.
    """
    found, root, look, plan = get_reader(reader), Path(root), look or Look(), plan or Plan()
    full_rules = found.rules(rules)
    report: dict[str, Any] = {
        "schema": 1,
        "dataset": dataset,
        "reader": reader,
        "root": str(root),
        "rules": full_rules,
        "mode": "full" if look.full else "quick",
        "files": {"missing": found.missing_files(root, full_rules)},
        "weights": [asdict(w) for w in weights],
        "expected": {split: dict(numbers) for split, numbers in expected.items()},
    }
    if report["files"]["missing"]:
        total = sum(numbers.get("clips", 0) for numbers in expected.values())
        here = len(VideoIndex(root))
        return {
            **report,
            "counts": None,
            "differs": [],
            "captions": None,
            "videos": {"expected": total, "found": here, "missing": None, "unreadable": []},
            "effect": None,
            "work": None,
            "data_id": None,
        }
    table = _read(found, root, full_rules, dataset)
    captions = caption_facts(table, plan.limits)
    videos = look_at_videos(table, root, look)
    absent = absent_clips(videos)
    train = captions.get("train", {"tokens": 0, "captions": 1})
    if "train" not in captions:
        report["weights"] = [w for w in report["weights"] if not w["training_only"]]
    return {
        **report,
        "counts": count(table),
        "differs": _differences(count(table), expected),
        "captions": captions,
        "videos": videos,
        "effect": effect_of(table, absent, expected),
        "work": work_ahead(
            table,
            # Before the first video is there, the whole dataset is to come.
            absent if len(absent) < videos["expected"] else [],
            plan,
            sizes=videos["sizes"],
            mean_tokens=train["tokens"] / train["captions"],
        ),
        "data_id": data_id(table),
    }


def absent_clips(videos: Mapping[str, Any]) -> list[str]:
    """Clips without a readable video, of a report's `videos`."""
    return [*(videos["missing"] or []), *videos["unreadable"]]


def _read(reader: Reader, root: Path, rules: Mapping[str, str], dataset: str) -> pd.DataFrame:
    table = reader.read(root, rules)  # every reader checks its rows
    if table.empty:
        raise UserError(
            f"{dataset}: no captions at all in {', '.join(reader.required_files(rules))}"
        )
    return table


def _differences(counts: Mapping[str, Mapping[str, int]], expected: Expected) -> list[str]:
    return [
        f"{split} has {counts.get(split, {}).get(what, 0):,} {what}, published are {number:,}"
        for split, numbers in expected.items()
        for what, number in numbers.items()
        if counts.get(split, {}).get(what, 0) != number
    ]


def judge(report: Mapping[str, Any], *, where: str, allow_missing: bool) -> dict[str, Any]:
    """The report with `allow_missing` and the clips it leaves out.

    Args:
        report: what `check_dataset` returned.
        where: the setting that names the folder, for the message.
        allow_missing: go on without missing videos and with other counts than the published.

    Raises:
        CheckFailed: something is missing; one message has all of it.
    """
    problems = _problems(report, allow_missing)
    if problems:
        nothing = bool(report["files"]["missing"]) or not report["videos"]["found"]
        state = "data not found" if nothing else "data incomplete"
        if all(problem.startswith(("backbone", "captioner")) for problem in problems):
            state = "weights not found"
        raise CheckFailed(
            f"{report['dataset']}: {state}. Looked in {report['root']} ({where}). "
            f"Missing: {'; '.join(problems)}.{_notes(report, allow_missing)} "
            f"Next: {get_reader(report['reader']).next_step}."
        )
    return {**report, "allow_missing": allow_missing, "excluded": absent_clips(report["videos"])}


def _problems(report: Mapping[str, Any], allow_missing: bool) -> list[str]:
    """What stands in the way, most basic first."""
    problems = []
    videos = report["videos"]
    if report["files"]["missing"]:
        problems.append(", ".join(report["files"]["missing"]))
        lacking = videos["expected"] - videos["found"]
        if lacking > 0:
            problems.append(f"{lacking:,} videos")
    elif not allow_missing or not videos["found"]:
        if videos["missing"]:
            problems.append(f"{len(videos['missing']):,} videos ({some(videos['missing'])})")
        if videos["unreadable"]:
            names = some(videos["unreadable"])
            problems.append(f"{len(videos['unreadable']):,} videos cannot be read ({names})")
        problems += report["differs"]
    for entry in report["weights"]:
        if entry["status"] == "missing":
            needed = f"; needed by {', '.join(entry['needed_by'])}" if entry["needed_by"] else ""
            problems.append(f"{entry['name']}: {entry['source']} ({entry['hint']}{needed})")
    return problems


def _notes(report: Mapping[str, Any], allow_missing: bool) -> str:
    notes = ""
    fetched = [
        f"{w['name']}: {w['source']}" for w in report["weights"] if w["status"] == "to fetch"
    ]
    if fetched:
        notes += (
            f" To be fetched when first needed: {'; '.join(fetched)} "
            "(HF_HUB_OFFLINE=1 would forbid it)."
        )
    videos = report["videos"]
    if videos["missing"] and videos["unused"]:
        notes += (
            f" {videos['unused']:,} video files there have names that no clip asks for, such as "
            f"{videos['unused_example']!r}."
        )
    absent = absent_clips(videos)
    if (absent or report["differs"]) and len(absent) < videos["expected"] and not allow_missing:
        left = "; ".join(describe_effect(*item) for item in report["effect"].items())
        notes += (
            " To go on without them, set allow_missing: true; results say what was left out"
            + (f": {left}." if left else ".")
        )
    return notes


def some(names: Sequence[str]) -> str:
    """The first few names, and a sign that there are more."""
    more = ", …" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
