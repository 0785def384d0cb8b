"""`python -m tests.rehearsal --dataset msrvtt`: from a fresh folder to the dataset's table."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

from tests.rehearsal import msrvtt, weights
from tests.workflow.run import ROOT, edit, snakemake, workspace

TABLES = {"msrvtt": "results/msrvtt/table1.csv"}


def expect(folder: Path, target: str, cores: int, success: bool) -> str:
    """Run the workflow and stop if it does not end as expected."""
    found = snakemake(folder, target, cores=cores, timeout=3600)
    if (found.returncode == 0) != success:
        print(found.stdout[-6000:])
        sys.exit(f"the workflow {'failed' if success else 'should have failed'} in {folder}")
    return found.stdout


def rehearse(folder: Path, cores: int) -> None:
    """Make the files, meet the broken videos, allow them, and train the table."""
    target = TABLES["msrvtt"]
    workspace(folder)
    print("writing a cut of MSRVTT and random weights", flush=True)
    msrvtt.write_dataset(folder / "data" / "msrvtt")
    digest = weights.write_openai_archive(folder / "weights" / "ViT-B-32.pt")
    weights.write_random_llava(folder / "weights" / "llava-next")
    msrvtt.configure(folder, digest)

    print("broken videos must stop the strict run", flush=True)
    output = expect(folder, target, cores, success=False)
    message = "\n".join(output.strip().splitlines()[-8:])
    print(message)
    for name in msrvtt.BROKEN:
        if name not in message:
            sys.exit(f"the message does not name {name}")

    print("allowing them", flush=True)
    edit(folder / "config" / "config.yaml", lambda content: content.update(allow_missing=True))
    start = time.monotonic()
    expect(folder, target, cores, success=True)
    print(f"{target} after {time.monotonic() - start:.0f} s")
    print(msrvtt.describe(folder / target))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", choices=sorted(TABLES), default="msrvtt")
    parser.add_argument("--cores", type=int, default=2)
    arguments = parser.parse_args()
    place = ROOT / "build" / "rehearsal" / arguments.dataset
    shutil.rmtree(place, ignore_errors=True)
    rehearse(place, arguments.cores)
