"""Damaged annotation files of every reader: `python -m tests.campaigns.annotations --cases 2000`.

Each case damages one self-made file and converts the dataset. Either the reader refuses it with a
`UserError` that names a file of the dataset, or the table holds exactly the captions that a naive
reading of the damaged files finds. A file that was cut short is refused or told about in the log.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from discovla.data.annotations import convert, get_reader, read_annotations
from discovla.data.annotations.base import validate
from discovla.data.names import stem_of
from discovla.errors import UserError
from tests.campaigns.command import damage_command
from tests.campaigns.damage import damage
from tests.data.annotations.files import (
    ACTIVITYNET,
    DEMO,
    DIDEMO,
    MANIFEST,
    MSRVTT,
    Content,
    lsmdc_files,
    lsmdc_row,
    write,
)

Files = Mapping[str, bytes]
LSMDC = lsmdc_files(
    train="".join(lsmdc_row(f"0001_A_00.0{n}.00.000-00.0{n}.02.000", f"he {n}") for n in range(5)),
    val=lsmdc_row("0002_B_0", "one") + lsmdc_row("0002_B_0", "two"),
)
SUBJECTS: list[tuple[str, dict[str, str], Mapping[str, Content]]] = [
    ("msrvtt", {"split": "9k"}, MSRVTT),
    ("msrvtt", {"split": "full"}, MSRVTT),
    ("lsmdc", {"encoding": "utf-8"}, LSMDC),
    ("lsmdc", {"encoding": "latin-1"}, LSMDC),
    ("activitynet", {"paragraph_order": "file"}, ACTIVITYNET),
    ("activitynet", {"paragraph_order": "time"}, ACTIVITYNET),
    ("didemo", {"paragraph_order": "time", "join": "stem"}, DIDEMO),
    ("didemo", {"paragraph_order": "file", "join": "exact_name"}, DIDEMO),
    ("demo", {}, DEMO),
    ("manifest", {"format": "csv"}, MANIFEST),
    ("manifest", {"format": "parquet"}, MANIFEST),
]


@dataclass(frozen=True)
class Outcome:
    """What came of one case; `fault` says what was wrong, "" = nothing."""

    case: str
    result: str
    fault: str = ""


def files_of(reader: str, rules: Mapping[str, str], content: Mapping[str, Content]) -> Files:
    """The bytes of the files that a reader needs."""
    if rules.get("format") == "parquet":
        buffer = io.BytesIO()
        pd.read_csv(io.StringIO(str(content["manifest.csv"]))).to_parquet(buffer)
        return {"manifest.parquet": buffer.getvalue()}
    with tempfile.TemporaryDirectory() as folder:
        root = write(Path(folder), content)
        names = get_reader(reader).required_files(rules)
        return {name: (root / name).read_bytes() for name in names}


def run_case(number: int, seed: int, folder: Path) -> Outcome:
    """Damage one file of one dataset and convert it."""
    rng = random.Random(f"{seed}/{number}")
    reader, rules, content = SUBJECTS[number % len(SUBJECTS)]
    files = dict(files_of(reader, rules, content))
    name = rng.choice(sorted(files))
    how, files[name] = damage(files[name], Path(name).suffix, rng)
    case = f"case {number} ({reader} {rules}, {name}: {how})"
    root = folder / str(number)
    root.mkdir()
    write(root, files)
    records: list[str] = []
    with Warnings(records):
        try:
            convert("mine", reader, root, rules, root / "out.parquet")
        except UserError as error:
            named = any(str(root / file) in str(error) for file in files)
            return Outcome(case, "refused", "" if named else f"names no file: {error}")
        except Exception as error:
            return Outcome(case, "crashed", f"{type(error).__name__}: {error}")
    return Outcome(case, "read", _fault(reader, rules, files, name, how, root, records))


class Warnings(logging.Handler):
    """Collects what the readers log."""

    def __init__(self, records: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.records = records
        self.logger = logging.getLogger("discovla.data.annotations")

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record.getMessage())

    def __enter__(self) -> None:
        self.logger.addHandler(self)
        self.propagates, self.logger.propagate = self.logger.propagate, False

    def __exit__(self, *_: object) -> None:
        self.logger.removeHandler(self)
        self.logger.propagate = self.propagates


def _fault(
    reader: str,
    rules: Mapping[str, str],
    files: Files,
    name: str,
    how: str,
    root: Path,
    records: list[str],
) -> str:
    """What is wrong with the table of a damaged dataset."""
    table = read_annotations(root / "out.parquet")
    validate(table, "the table read back")
    try:
        expected = Counter(naive(reader, rules, files))
    except Exception as error:
        return f"was read, and is not in order: {type(error).__name__}: {error}"
    found = Counter(table["caption"])
    if found != expected:
        return f"lost {expected - found}, added {found - expected}"
    if how == "cut" and not name.endswith(".parquet"):
        if name.endswith(".json") and files[name].strip()[-1:] not in (b"}", b"]"):
            return "a JSON file that was cut was read"
        at_line_end = files[name].endswith(b"\n")
        if not name.endswith(".json") and not at_line_end:
            told = any(name in record and "no end" in record for record in records)
            return "" if told else "a cut last line was not told"
    return ""


def naive(reader: str, rules: Mapping[str, str], files: Files) -> Iterator[str]:
    """The captions of files that are in order, in the simplest way."""
    if reader == "lsmdc":
        for data in files.values():
            encoding = "utf-8-sig" if rules["encoding"] == "utf-8" else rules["encoding"]
            for line in data.decode(encoding).split("\n")[: None if data[-1:] != b"\n" else -1]:
                yield line.removesuffix("\r").split("\t")[5]
    elif reader == "activitynet":
        for data in files.values():
            for entry in json.loads(data).values():
                moments = entry.get("timestamps") or [0] * len(entry["sentences"])
                order = range(len(moments))
                if rules["paragraph_order"] == "time":
                    order = sorted(order, key=lambda n: tuple(moments[n]))
                yield " ".join(entry["sentences"][n] for n in order)
    elif reader == "didemo":
        yield from _naive_didemo(rules, files)
    elif reader == "demo":
        for clip in json.loads(files["annotations.json"])["clips"]:
            yield from clip["captions"]
    elif reader == "msrvtt":
        yield from _naive_msrvtt(rules, files)
    elif rules["format"] == "csv":
        yield from (row["caption"] for row in _rows(files["manifest.csv"]))
    else:
        yield from pq.read_table(io.BytesIO(files["manifest.parquet"]))["caption"].to_pylist()


def _rows(data: bytes) -> csv.DictReader[str]:
    return csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))


def _naive_msrvtt(rules: Mapping[str, str], files: Files) -> Iterator[str]:
    sentences = json.loads(files["MSRVTT_data.json"])["sentences"]
    if rules["split"] == "full":
        yield from (sentence["caption"] for sentence in sentences)
        return
    ids = {row["video_id"] for row in _rows(files["MSRVTT_train.9k.csv"])}
    yield from (s["caption"] for s in sentences if s["video_id"] in ids)
    yield from (row["sentence"] for row in _rows(files["MSRVTT_JSFUSION_test.csv"]))


def _naive_didemo(rules: Mapping[str, str], files: Files) -> Iterator[str]:
    for split in ("train", "val", "test"):
        entries = json.loads(files[f"{split}_data.json"])
        if rules["join"] == "exact_name":
            names = files[f"{split}_list.txt"].decode("utf-8-sig").split("\n")
            listed = [name.strip() for name in names]
            entries = [entry for entry in entries if entry["video"] in listed]
        for stem in dict.fromkeys(stem_of(entry["video"]) for entry in entries):
            own = [entry for entry in entries if stem_of(entry["video"]) == stem]
            if rules["paragraph_order"] == "time":
                own.sort(key=lambda entry: Counter(map(tuple, entry["times"])).most_common(1)[0][0])
            yield " ".join(entry["description"] for entry in own)


def run(cases: int, seed: int) -> list[Outcome]:
    """All cases, each in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        return [run_case(number, seed, Path(folder)) for number in range(cases)]


def main(arguments: list[str] | None = None) -> int:
    """Print how many were refused and read, and every fault; exit 1 if there is one."""
    return damage_command(__doc__, run, 2000, arguments)


if __name__ == "__main__":
    sys.exit(main())
