"""`python -m tests.rehearsal --dataset lsmdc`: from a fresh folder to the dataset's table."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.rehearsal import outcome, weights
from tests.rehearsal.activitynet import CUT as ACTIVITYNET
from tests.rehearsal.cut import Cut
from tests.rehearsal.didemo import CUT as DIDEMO
from tests.rehearsal.lsmdc import CUT as LSMDC
from tests.rehearsal.msrvtt import CUT as MSRVTT
from tests.workflow.run import ROOT, edit, snakemake, workspace

CUTS = {cut.dataset: cut for cut in (MSRVTT, LSMDC, ACTIVITYNET, DIDEMO)}


def expect(folder: Path, target: str, cores: int, success: bool) -> str:
    """Run the workflow and stop if it does not end as expected."""
    start = time.monotonic()
    found = snakemake(folder, target, cores=cores, timeout=3600)
    if (found.returncode == 0) != success:
        print(found.stdout[-6000:])
        sys.exit(f"the workflow {'failed' if success else 'should have failed'} in {folder}")
    print(f"ended as expected after {time.monotonic() - start:.0f} s", flush=True)
    return found.stdout


def prepare(folder: Path, cut: Cut) -> None:
    """A fresh workspace with the cut's files and random weights."""
    workspace(folder)
    cut.write(folder / "data" / cut.dataset)
    digest = weights.write_openai_archive(folder / "weights" / "ViT-B-32.pt")
    weights.write_random_llava(folder / "weights" / "llava-next")
    cut.configure(folder, digest)


def meet_bad_files(folder: Path, cut: Cut, cores: int) -> None:
    """The strict run must stop and name bad files; a full check must name all of them."""
    output = expect(folder, cut.target, cores, success=False)
    message = "\n".join(output.strip().splitlines()[-8:])
    print(message)
    if not any(name in message for name in (*cut.missing, *cut.unreadable)):
        sys.exit("the message names no bad file")
    must_name(message, cut.obvious)

    print("a full check names all of them", flush=True)
    command = [sys.executable, "-m", "discovla", "check", cut.dataset, "--full"]
    checked = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    print(checked.stdout + checked.stderr)
    if checked.returncode != 3:
        sys.exit(f"the check ended with {checked.returncode}; 3 was expected")
    must_name(checked.stdout + checked.stderr, [*cut.missing, *cut.unreadable])


def must_name(text: str, names: Sequence[str]) -> None:
    """Stop if one of the names does not stand in the text."""
    absent = [name for name in names if name not in text]
    if absent:
        sys.exit(f"not named: {', '.join(absent)}")


def rehearse(folder: Path, cut: Cut, cores: int) -> None:
    """Make the files, meet the bad videos, allow them, make the table and look at it."""
    print(f"writing a cut of {cut.dataset} and random weights", flush=True)
    prepare(folder, cut)
    print("bad videos must stop the strict run", flush=True)
    meet_bad_files(folder, cut, cores)
    print("allowing them", flush=True)
    edit(folder / "config" / "config.yaml", lambda content: content.update(allow_missing=True))
    expect(folder, cut.target, cores, success=True)
    facts = outcome.facts(folder, cut)
    print(*facts, sep="\n")
    print(outcome.describe(folder / cut.target))
    wrong = sum(fact.found != fact.expected for fact in facts)
    if wrong:
        sys.exit(f"{wrong} facts are wrong in {folder}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", choices=sorted(CUTS), default="msrvtt")
    parser.add_argument("--cores", type=int, default=2)
    arguments = parser.parse_args()
    place = ROOT / "build" / "rehearsal" / arguments.dataset
    shutil.rmtree(place, ignore_errors=True)
    begin = time.monotonic()
    rehearse(place, CUTS[arguments.dataset], arguments.cores)
    print(f"rehearsed {arguments.dataset} in {time.monotonic() - begin:.0f} s")
