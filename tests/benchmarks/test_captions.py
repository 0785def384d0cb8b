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
main(["--tiny", "--frames", "1", "--captions", "3", "--tokens", "3", "--rounds", "1"])
"""


@pytest.mark.slow
def test_it_needs_torch_and_transformers_only() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SMALL], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("3 of 3 answers are the same") == 2
    assert "shared prefix" in done.stdout
