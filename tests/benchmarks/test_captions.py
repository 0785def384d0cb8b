from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: What a machine with a GPU may lack; None in sys.modules is an import that fails.
SMALL = """
import sys
absent = ["open_clip", "av", "decord", "snakemake", "ftfy", "pyarrow", "pandas"]
sys.modules.update(dict.fromkeys(absent))
from benchmarks.captions import main
main([sys.argv[1], "--frames", sys.argv[2], "--captions", "3", "--tokens", "3", "--rounds", "1"])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "frames", "way"),
    [("--tiny", "1", "shared prefix"), ("--unshared", "3", "of the rate of a matrix product")],
)
def test_it_needs_torch_and_transformers_only(option: str, frames: str, way: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SMALL, option, frames],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("3 of 3 answers are the same") == 2
    assert way in done.stdout
