"""The report of the data check as a page for people."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from discovla.data.checks.effect import describe_effect

SHOWN = 3
"""Examples that a line names."""
Line = tuple[str, str]
"""A heading of one or two words and what is to be said."""


def page(report: Mapping[str, Any], destination: str | Path = ".") -> str:
    """The report as aligned text: counts, what is wrong, what is worth knowing, the work ahead.

    Args:
        report: what `check_dataset` returned.
        destination: the folder that frames and results go to; its free space is shown (and
            stands nowhere in the report, because it changes).

    Returns:
        Lines without a last line end.
    """
    parts = [[headline(report)], _columns(count_rows(report))]
    parts += [[title, *_aligned(lines)] for title, lines in findings(report, destination)]
    return "\n\n".join("\n".join(part) for part in parts)


def headline(report: Mapping[str, Any]) -> str:
    """What was looked at, and how."""
    how = "every video decoded" if report["mode"] == "full" else "quick look"
    return f"{report['dataset']} in {report['root']} ({how})"


def findings(
    report: Mapping[str, Any], destination: str | Path | None
) -> list[tuple[str, list[Line]]]:
    """Everything but the counts, by title; without `destination` no word of free space."""
    problems = list(_problems(report)) or [("none", "all that was looked for is there")]
    found = [
        ("problems", problems),
        ("worth knowing", list(_remarks(report))),
        ("weights", [_weights(entry) for entry in report["weights"]]),
        ("work ahead", list(_work(report, destination))),
    ]
    return [(title, lines) for title, lines in found if lines]


def count_rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Clips and captions of each split beside the published numbers, under a line of headings."""
    counts, expected = report["counts"] or {}, report["expected"]
    rows: list[tuple[str, ...]] = [("split", "clips", "published", "captions", "published")]
    for split in dict.fromkeys([*expected, *counts]):
        cells = []
        for what in ("clips", "captions"):
            here, published = counts.get(split, {}).get(what), expected.get(split, {}).get(what)
            wrong = here is not None and published is not None and here != published
            cells += [_number(here) + ("!" if wrong else ""), _number(published)]
        rows.append((split, *cells))
    return rows


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _problems(report: Mapping[str, Any]) -> Iterator[Line]:
    """What stops a strict run."""
    if report["files"]["missing"]:
        yield "annotations", f"missing: {', '.join(report['files']['missing'])}"
    for difference in report["differs"]:
        yield "counts", difference
    videos = report["videos"]
    if videos["missing"]:
        yield "missing", _of(videos["missing"], "clips have no video")
    for clip in videos["unreadable"][:SHOWN]:
        yield "unreadable", f"{clip}: {videos['errors'][clip].splitlines()[0]}"
    if len(videos["unreadable"]) > SHOWN:
        yield "unreadable", f"… {len(videos['unreadable']):,} clips in all"
    if videos["missing"] and videos["unused"]:
        example = videos["unused_example"]
        yield "unused", f"{videos['unused']:,} video files that no clip asks for, such as {example}"
    for split, effect in (report["effect"] or {}).items():
        yield "effect", describe_effect(split, effect)
    for entry in report["weights"]:
        if entry["status"] == "missing":
            yield "weights", f"{entry['name']}: {entry['source']}; {entry['hint']}"


def _remarks(report: Mapping[str, Any]) -> Iterator[Line]:
    """What changes numbers without stopping a run."""
    videos = report["videos"]
    if report["counts"] is None:
        yield "videos", f"{videos['found']:,} video files, {videos['expected']:,} clips published"
        return
    found = f"{videos['found']:,} of {videos['expected']:,} found, {videos['opened']:,} opened"
    yield "videos", found + _sizes(videos["sizes"])
    for entry in videos["ambiguous"][:SHOWN]:
        yield "several files", f"{entry['clip']}: {entry['used']} is used, not {entry['others'][0]}"
    if len(videos["ambiguous"]) > SHOWN:
        yield "several files", f"… {len(videos['ambiguous']):,} clips in all"
    yield from _groups("one file", videos["shared"], "is the video of several clips")
    yield from _groups("equal videos", videos["duplicates"], "have equal contents")
    if videos["short"]:
        names = [f"{s['clip']} ({s['seconds']:g} s, {s['frames']} frames)" for s in videos["short"]]
        yield "short", _of(names, "clips are below 1 s or have fewer frames than F: frames repeat")
    if videos["damaged"]:
        names = [entry["clip"] for entry in videos["damaged"]]
        yield "damaged", _of(names, "clips have bad packets and lost the frames in them")
    for split, facts in report["captions"].items():
        yield from ((f"{split} text", text) for text in _captions(split, facts))


def _captions(split: str, facts: Mapping[str, Any]) -> Iterator[str]:
    total = facts["captions"]
    for cut in facts["cut"]:
        if cut["captions"]:
            lost = 100 * cut["tokens"] / facts["tokens"]
            yield (
                f"{cut['captions']:,} of {total:,} captions are longer than {cut['words']} tokens "
                f"and are cut ({lost:.1f} % of all tokens; the longest has {facts['longest'] + 2})"
            )
    if split != "train" and facts["distinct"] < total:
        yield f"{total - facts['distinct']:,} of {total:,} captions repeat another: ties"
    if facts["without_words"]:
        yield f"{facts['without_words']:,} of {total:,} captions have no word at all"
    if facts["non_ascii"]:
        yield f"{facts['non_ascii']:,} of {total:,} captions are not plain ASCII"


def _weights(entry: Mapping[str, Any]) -> Line:
    needed = f"; for {_targets(entry['needed_by'])}" if entry["needed_by"] else ""
    return entry["status"], f"{entry['name']}: {entry['source']}{needed}"


def _work(report: Mapping[str, Any], destination: str | Path | None) -> Iterator[Line]:
    work = report["work"]
    if work is None:
        return
    if work["frame_sizes"]["source"] != "opened videos":
        yield "frame size", f"{'; '.join(work['frame_sizes']['sizes'])}, assumed: none was opened"
    for frames in work["frames"]:
        count = f"{frames['frames']:,} ({frames['frames_per_clip']} per clip)"
        side = f", short side {frames['short_side']}" if frames["short_side"] else ""
        raw = f" (raw {_bytes(frames['raw_bytes'])})" if frames["encoding"] != "raw" else ""
        size = f"about {_bytes(frames['bytes'])} as {frames['encoding']}{side}{raw}"
        yield "frames", f"{count}, {size}; {_targets(frames['tables'])}"
    if destination is not None:
        needed, free = sum(frames["bytes"] for frames in work["frames"]), free_bytes(destination)
        enough = "" if free > needed else ": NOT ENOUGH for the frames"
        yield "disk", f"{_bytes(free)} free{enough}"
    for captions in work["captions"]:
        yield from (("captions", text) for text in _caption_work(captions, work["card"]))
    if work["trainings"]:
        steps = sum(item["steps"] * item["seeds"] for item in work["trainings"])
        seeds = work["trainings"][0]["seeds"]
        times = f" x {seeds} seeds" if seeds > 1 else ""
        yield "training", f"{len(work['trainings']):,} runs{times}, {steps:,} steps in all"
        empty = sum(item["steps"] == 0 for item in work["trainings"])
        if empty:
            yield "training", f"{empty:,} of them have fewer training pairs than one batch"


def _caption_work(captions: Mapping[str, Any], card: Mapping[str, Any]) -> Iterator[str]:
    prompts = f"{captions['prompts']:,} prompts ({captions['kind']}, {captions['captioner']})"
    if captions["prompts"] < captions["captions"]:
        prompts += f" for {captions['captions']:,} captions: equal ones are asked once"
    yield f"{prompts}; {_targets(captions['tables'])}"
    cost = captions["cost"]
    if cost is not None:
        yield (
            f"  {cost['image_tokens']:,.0f} image tokens each; naive {cost['naive']:.2e} FLOP = "
            f"{_hours(cost['hours_naive'])}, shared prefix {cost['shared']:.2e} FLOP = "
            f"{_hours(cost['hours_shared'])} ({card['name']}, {card['share']:.0%} of "
            f"{card['peak_tflops']:g} TFLOP/s)"
        )


def _targets(names: Sequence[str]) -> str:
    """`table1, table5-table7, own`: names that count on are drawn together."""
    runs: list[list[str]] = []
    for name in names:
        word, number = name.rstrip("0123456789"), name[len(name.rstrip("0123456789")) :]
        if runs and number and runs[-1][-1] == f"{word}{int(number) - 1}":
            runs[-1].append(name)
        else:
            runs.append([name])
    return ", ".join(run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def free_bytes(folder: str | Path) -> int:
    """Free bytes where a folder is, or will be."""
    path = Path(folder).absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def _groups(name: str, groups: Sequence[Mapping[str, Any]] | None, what: str) -> Iterator[Line]:
    for group in (groups or [])[:SHOWN]:
        leak = " (IN SEVERAL SPLITS)" if len(group["splits"]) > 1 else ""
        yield name, f"{_first(group['paths'])} {what}: {_first(group['clips'])}{leak}"
    if groups and len(groups) > SHOWN:
        yield name, f"… {len(groups):,} groups in all"


def _sizes(sizes: Mapping[str, int]) -> str:
    if not sizes:
        return ""
    shown = ", ".join(f"{times:,} x {size}" for size, times in list(sizes.items())[:SHOWN])
    return f" ({shown}{', …' if len(sizes) > SHOWN else ''})"


def _of(names: Sequence[str], what: str) -> str:
    return f"{len(names):,} {what}: {_first(names)}"


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.3g} TB"


def _hours(value: float) -> str:
    return f"{value:,.1f} h" if value >= 0.1 else f"{value:.1g} h"


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _aligned(lines: Iterable[Line]) -> list[str]:
    """Indented lines; a heading is printed once for the lines that follow each other under it."""
    lines = list(lines)
    width = max(len(heading) for heading, _ in lines)
    last, found = "", []
    for heading, text in lines:
        shown = heading if heading != last else ""
        found.append(f"  {shown.ljust(width)}  {text}")
        last = heading
    return found
