"""Killing a training: whatever step SIGKILL comes at, the resumed one ends bit-identical.

    python -m tests.campaigns.training --kills 10 [--seed 0] [--demo FOLDER]

The command line's own process trains a tiny DiscoVLA (with --demo, the demo's: FOLDER is where the
workflow has made its frames and captions), one CPU thread, saving its state at every step. It is
killed at seeded steps, every second time while the state is being written, and started again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import safe_open

from discovla.experiments import Experiments
from discovla.training.checkpoint import read_adapter, read_run_config
from discovla.training.loop import train
from discovla.training.state import STATE_NAME
from tests.training import world

PATIENCE = 600


@dataclass(frozen=True)
class Training:
    """The inputs of one training."""

    config: Path
    annotations: Path
    frames: Path
    captions: Path
    steps: int
    seed: int = 1

    @classmethod
    def tiny(cls, root: Path) -> Training:
        """50 steps on random clips."""
        made = world.build(root).with_settings(root / "longer", epochs=10)
        return cls(made.config_path, made.annotations, made.frames, made.captions, steps=50)

    @classmethod
    def of_demo(cls, folder: Path, root: Path, row: str = "discovla") -> Training:
        """A row of the demo's Table 5, whose frames and captions are there."""
        run = Experiments.load().row("demo", "table5", row).run
        assert run is not None
        config = root / "config.json"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(json.dumps(run.config()))
        resources = folder / "resources" / "demo"
        return cls(
            config,
            resources / "annotations.parquet",
            resources / "frames" / run.frames_id,
            folder / "results" / "demo" / "captions" / f"{run.captions_id}.parquet",
            steps=run.settings.max_steps or 0,
        )

    def here(self, output: Path) -> None:
        """Train, or go on, in this process."""
        train(
            read_run_config(self.config),
            seed=self.seed,
            annotations=self.annotations,
            frames_dir=self.frames,
            captions=self.captions,
            output_dir=output,
            device="cpu",
            save_every=1,
        )

    def start(self, output: Path) -> subprocess.Popen[bytes]:
        """The process that trains, or goes on."""
        command = [sys.executable, "-m", "discovla", "train", "--config", str(self.config)]
        command += ["--annotations", str(self.annotations), "--frames", str(self.frames)]
        command += ["--captions", str(self.captions), "--seed", str(self.seed), "--device", "cpu"]
        command += ["--save-every", "1", "--output", str(output)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)


@dataclass
class Outcome:
    """What a campaign saw."""

    kills: int = 0
    while_writing: int = 0
    steps: tuple[int, ...] = ()
    """Steps that the saved state had after each kill."""


def campaign(kills: int, seed: int, training: Training, folder: Path) -> Outcome:
    """Kill a training `kills` times; `AssertionError` if the end is not as undisturbed."""
    rng, outcome = random.Random(seed), Outcome()
    whole, disturbed = folder / "whole", folder / "disturbed"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for number, step in enumerate(sorted(rng.sample(range(1, training.steps - 2), kills))):
            _kill(training.start(disturbed), disturbed, step, number % 2 == 1, outcome)
        training.here(disturbed)
        training.here(whole)
    finally:
        torch.set_num_threads(before)
    _check_equal(whole, disturbed)
    return outcome


def _kill(
    process: subprocess.Popen[bytes], folder: Path, step: int, writing: bool, outcome: Outcome
) -> None:
    """Kill a process once `step` steps are saved; `writing` waits for a half-written state."""
    state, deadline = folder / "state", time.monotonic() + PATIENCE
    while saved_step(state) < step or (writing and not any(state.glob(".state.*"))):
        assert process.poll() is None, "the training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.0002 if writing else 0.001)
    process.send_signal(signal.SIGKILL)
    process.wait(PATIENCE)
    assert not (folder / "adapter.safetensors").exists()
    outcome.kills += 1
    outcome.while_writing += any(state.glob(".state.*"))
    outcome.steps += (saved_step(state),)


def saved_step(folder: Path) -> int:
    """Steps that a state has done; 0 without one. A damaged state raises."""
    path = folder / STATE_NAME
    if not path.exists():
        return 0
    with safe_open(path, "pt") as file:
        return int(file.metadata()["step"])


def _check_equal(whole: Path, disturbed: Path) -> None:
    files = sorted(path.relative_to(whole) for path in whole.rglob("*.safetensors"))
    assert files == sorted(path.relative_to(disturbed) for path in disturbed.rglob("*.safetensors"))
    for name in files:
        (one, first), (other, second) = read_adapter(whole / name), read_adapter(disturbed / name)
        assert first == second, name
        assert one.keys() == other.keys(), name
        for tensor in one:
            assert torch.equal(one[tensor], other[tensor]), f"{name}: {tensor}"
    pd.testing.assert_frame_equal(_curve(whole), _curve(disturbed), check_exact=True)


def _curve(folder: Path) -> Any:
    return pd.read_csv(folder / "curve.csv").drop(columns="samples_per_second")


def main() -> None:
    """Run the campaign of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--demo", type=Path, help="folder in which the workflow has run the demo")
    args = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = Training.of_demo(args.demo, folder / "run") if args.demo else None
        training = made or Training.tiny(folder / "world")
        outcome = campaign(args.kills, args.seed, training, folder)
    print(
        f"{outcome.kills} kills, {outcome.while_writing} of them while the state was written, "
        f"after steps {', '.join(map(str, outcome.steps))} of {training.steps}; adapter, "
        f"checkpoints and curve bit-identical ({time.monotonic() - begin:.0f} s)"
    )


if __name__ == "__main__":
    main()
