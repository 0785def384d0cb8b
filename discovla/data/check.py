"""Is everything there? All that is missing comes in one message, before anything runs for hours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from discovla.data.annotations import Reader, data_id, get_reader
from discovla.data.annotations.base import count, validate
from discovla.data.clips import VideoIndex, list_clips, stems_of_clips
from discovla.data.requirements import Weights
from discovla.data.worker import DEFAULT_TIMEOUT, DecodeWorker
from discovla.errors import CheckFailed

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
    full: bool = False,
    timeout: float = DEFAULT_TIMEOUT,
) -> dict[str, Any]:
    """Look at a dataset's files, videos and the weights its runs need.

    Args:
        dataset: its name.
        reader: the annotation reader.
        root: folder with its files.
        rules: the reader's rules.
        expected: published clips and captions of each split.
        weights: what is known of the weights.
        full: open every video and decode its first frame.
        timeout: seconds for one video.

    Returns:
        A report without times of day, so that equal data give equal bytes: `files` missing,
        `counts` (null without annotations), `differs` from the published counts, `videos` found,
        missing and unreadable, `weights`, and `data_id`.
    """
    found, root = get_reader(reader), Path(root)
    full_rules = found.rules(rules)
    report: dict[str, Any] = {
        "schema": 1,
        "dataset": dataset,
        "reader": reader,
        "root": str(root),
        "rules": full_rules,
        "files": {"missing": found.missing_files(root, full_rules)},
        "weights": [asdict(w) for w in weights],
    }
    if report["files"]["missing"]:
        total = sum(numbers.get("clips", 0) for numbers in expected.values())
        here = len(VideoIndex(root))
        return {
            **report,
            "counts": None,
            "differs": [],
            "videos": {"expected": total, "found": here, "missing": None, "unreadable": []},
            "data_id": None,
        }
    table = _read(found, root, full_rules, dataset)
    return {
        **report,
        "counts": count(table),
        "differs": _differences(count(table), expected),
        "videos": _videos(table, root, full, timeout),
        "data_id": data_id(table),
    }


def _read(reader: Reader, root: Path, rules: Mapping[str, str], dataset: str) -> pd.DataFrame:
    table = reader.read(root, rules)
    validate(table, dataset)
    return table


def _differences(counts: Mapping[str, Mapping[str, int]], expected: Expected) -> list[str]:
    return [
        f"{split} has {counts.get(split, {}).get(what, 0):,} {what}, published are {number:,}"
        for split, numbers in expected.items()
        for what, number in numbers.items()
        if counts.get(split, {}).get(what, 0) != number
    ]


def _videos(table: pd.DataFrame, root: Path, full: bool, timeout: float) -> dict[str, Any]:
    """Clips whose video is absent or, if asked to open them, cannot be read."""
    stems = stems_of_clips(table)
    if full:
        with DecodeWorker(timeout) as worker:
            clips = list_clips(table, root, worker)
        by_status = {str(s): list(part["clip_id"]) for s, part in clips.groupby("status")}
        missing, unreadable = by_status.get("missing", []), by_status.get("unreadable", [])
    else:
        index = VideoIndex(root)
        missing, unreadable = [c for c, names in stems.items() if index.find(names) is None], []
    return {
        "expected": len(stems),
        "found": len(stems) - len(missing),
        "missing": missing,
        "unreadable": unreadable,
    }


def judge(report: Mapping[str, Any], *, where: str, allow_missing: bool) -> dict[str, Any]:
    """The report with `allow_missing` and the clips it leaves out.

    Args:
        report: what `check_dataset` returned.
        where: the setting that names the folder, for the message.
        allow_missing: go on without missing videos and with other counts than the published.

    Raises:
        CheckFailed: something is missing; one message has all of it.
    """
    videos = report["videos"]
    absent = [*(videos["missing"] or []), *videos["unreadable"]]
    problems = _problems(report, allow_missing)
    if problems:
        nothing = bool(report["files"]["missing"]) or not videos["found"]
        state = "data not found" if nothing else "data incomplete"
        if all(problem.startswith(("backbone", "captioner")) for problem in problems):
            state = "weights not found"
        raise CheckFailed(
            f"{report['dataset']}: {state}. Looked in {report['root']} ({where}). "
            f"Missing: {'; '.join(problems)}.{_notes(report, absent, allow_missing)} "
            f"Next: {get_reader(report['reader']).next_step}."
        )
    return {**report, "allow_missing": allow_missing, "excluded": absent}


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
            problems.append(f"{len(videos['missing']):,} videos ({_some(videos['missing'])})")
        if videos["unreadable"]:
            names = _some(videos["unreadable"])
            problems.append(f"{len(videos['unreadable']):,} videos cannot be read ({names})")
        problems += report["differs"]
    for entry in report["weights"]:
        if entry["status"] == "missing":
            problems.append(f"{entry['name']}: {entry['source']} ({entry['hint']})")
    return problems


def _notes(report: Mapping[str, Any], absent: Sequence[str], allow_missing: bool) -> str:
    notes = ""
    fetched = [
        f"{w['name']}: {w['source']}" for w in report["weights"] if w["status"] == "to fetch"
    ]
    if fetched:
        notes += (
            f" To be fetched when first needed: {'; '.join(fetched)} "
            "(HF_HUB_OFFLINE=1 would forbid it)."
        )
    if (absent or report["differs"]) and not allow_missing:
        notes += " To go on without them, set allow_missing: true; results say what was left out."
    return notes


def _some(names: Sequence[str]) -> str:
    more = ", …" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
