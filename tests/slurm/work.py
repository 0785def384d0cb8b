"""Stands for a long command in a job: `work.py KIND OUTPUT`, stopped and resumed as ours are."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

# A script, started from any folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from discovla.errors import UserError
from discovla.interruption import (
    TERMINATED,
    StopRequest,
    Terminated,
    requeue_if_preempted,
    terminable,
)
from discovla.storage.files import atomic_path

STARTS = "starts"
"""Suffix of the file with a line per start: how often the work was done."""


def write(output: Path, **facts: object) -> None:
    with atomic_path(output) as path:
        path.write_text(json.dumps(facts))


def gpus(output: Path) -> None:
    write(output, visible=os.environ.get("CUDA_VISIBLE_DEVICES"))


def times(output: Path) -> None:
    begin = time.time()
    time.sleep(2)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    write(output, begin=begin, end=time.time(), job=os.environ["SLURM_JOB_ID"], visible=visible)


def fail(output: Path) -> None:
    raise UserError("the reason of the failure, in plain words")


def memory(output: Path) -> None:
    held = bytearray(600 << 20)
    time.sleep(5)
    write(output, bytes=len(held))


def twice(output: Path) -> None:
    """Counts to 3,000 in 5 minutes, or from where it was saved; ten seconds when it goes on."""
    state = output.with_suffix(".state")
    if state.exists():
        time.sleep(1)
        write(output, saved_at=json.loads(state.read_text())["count"])
        return
    with StopRequest() as stop:
        for count in range(3000):
            time.sleep(0.1)
            if stop.requested:
                time.sleep(2)  # saving takes a while
                write(state, count=count + 1)
            stop.obey()


KINDS = {"gpus": gpus, "times": times, "fail": fail, "memory": memory, "twice": twice}


def main() -> int:
    kind, output = sys.argv[1], Path(sys.argv[2])
    with output.with_suffix(f".{STARTS}").open("a") as handle:
        handle.write(f"{os.environ.get('SLURM_JOB_ID')}\n")
    try:
        with terminable():
            KINDS[kind](output)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Terminated:
        requeue_if_preempted()
        return TERMINATED
    return 0


if __name__ == "__main__":
    sys.exit(main())
