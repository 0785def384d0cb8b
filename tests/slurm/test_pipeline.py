"""The project's own workflow through sbatch: from videos to a table, orphans, several nodes."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

from discovla.verify import verify
from tests.data.videos import write_video
from tests.slurm.conftest import Workflow, until
from tests.slurm.local import Slurm
from tests.workflow.run import ROOT, SNAKEMAKE, edit, environment

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.parametrize("slurm", [2], indirect=True, ids=["two nodes"]),
]

DATASET = {
    "title": "Small",
    "reader": "manifest",
    "rules": {},
    "backbones": {"vit-b32": "demo-clip"},
    "shards": 1,
    "device": "cpu",
    "seeds": [0],
}
PLAIN = {"alpha": 0.0, "beta": 0.0}
ROWS = {
    "discovla": {"method": "discovla"},
    "orphan": {"method": "discovla", "set": {**PLAIN, "epochs": 250}},
    "nodes": {"method": "lora"},
}


class Pipeline(Workflow):
    """A workspace with a dataset of 20 videos of a second, and the demo's tiny models."""

    def prepare(self) -> None:
        demo = yaml.safe_load((ROOT / "config" / "datasets" / "demo.yaml").read_text())
        small = {"frames": 4, "batch_size": 8, "epochs": 3, "max_steps": None}
        dataset = {**DATASET, "set": {**demo["set"], **small}}
        config = self.folder / "config"
        (config / "datasets" / "small.yaml").write_text(yaml.safe_dump(dataset))
        # The paper's own ask for more layers than the tiny CLIP has.
        for path in [
            *(config / "tables").iterdir(),
            *(config / "figures").glob("figure[689].yaml"),
        ]:
            path.unlink()
        rows = [{"row": name, "label": name, **row} for name, row in ROWS.items()]
        for name in ROWS:  # a table of its own for each, so that each can be asked for
            table = {"title": name, "prints": [], "metrics": ["R@1", "R@sum", "MnR"]}
            table |= {"directions": ["t2v"], "rows": [row for row in rows if row["row"] == name]}
            (config / "tables" / f"{name}.yaml").write_text(yaml.safe_dump(table))
        self.set(data={"small": "data/small"})
        lines = ["path,caption,split"]
        for number in range(20):
            write_video(self.folder / "data" / "small" / f"{number}.mp4", n_frames=8 + number)
            split = "train" if number < 16 else "test"
            lines.append(f'{number}.mp4,"a clip, number {number}",{split}')
        (self.folder / "data" / "small" / "manifest.csv").write_text("\n".join(lines) + "\n")

    def set(self, **values: Any) -> None:
        """Change config/config.yaml."""
        edit(self.folder / "config" / "config.yaml", lambda content: content.update(values))

    def run_folder(self, row: str) -> Path:
        """Where a row's training lies."""
        method = ROWS[row]["method"]
        for path in (self.folder / "results" / "small" / "runs").glob(f"{method}-*/config.json"):
            settings = json.loads(path.read_text())
            settings = settings.get("settings") or settings["content"]["settings"]
            if settings["epochs"] == ROWS[row].get("set", {}).get("epochs", 3):
                return path.parent
        raise AssertionError(f"{row}: no run")

    def alone(self, row: str, folder: Path) -> dict[str, torch.Tensor]:
        """The row's adapter, trained undisturbed in one process without SLURM."""
        run = self.run_folder(row)
        (frames,) = (self.folder / "resources" / "small" / "frames").iterdir()
        command = [str(SNAKEMAKE.with_name("python")), "-m", "discovla", "train"]
        command += ["--config", str(run / "config.json"), "--seed", "0", "--device", "cpu"]
        command += ["--annotations", str(self.folder / "resources/small/annotations.parquet")]
        command += ["--frames", str(frames), "--output", str(folder)]
        plain = {**environment(), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        subprocess.run(command, check=True, env=plain, capture_output=True, timeout=180)
        return load_file(folder / "adapter.safetensors")

    def trained(self, row: str) -> dict[str, torch.Tensor]:
        return load_file(self.run_folder(row) / "seed0" / "adapter.safetensors")

    def train_log(self, row: str) -> str:
        logs = self.folder / "logs" / "small" / "runs" / self.run_folder(row).name
        return (logs / "seed0.train.log").read_text()


@pytest.fixture(scope="module")
def pipeline(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    found = Pipeline(slurm, tmp_path_factory.mktemp("pipeline") / "with a space")
    found.prepare()
    return found


def test_everything_from_videos_to_a_table_runs_as_slurm_jobs(
    pipeline: Pipeline, slurm: Slurm
) -> None:
    assert pipeline.run("results/small/discovla.csv") == 0, pipeline.said()[-4000:]
    table = pd.read_csv(pipeline.folder / "results" / "small" / "discovla.csv")
    assert list(table["row"]) == ["discovla"]
    assert table["t2v_R@sum"].notna().all()
    assert list(table["n_test"]) == [4]
    results = [pipeline.run_folder("discovla") / "seed0" / "adapter.safetensors"]
    results += list((pipeline.folder / "results" / "small" / "captions").glob("*.parquet"))
    results += list((pipeline.folder / "resources" / "small" / "frames").iterdir())
    for path in results:
        verify(path)
    assert len(results) == 3  # one shard of frames, the merged captions, one adapter
    jobs = [job["comment"] for job in slurm.jobs()]
    assert sum("sample_frames" in job or "frames" in job for job in jobs) == 1, jobs  # a group
    assert sum("caption" in job and "merge" not in job for job in jobs) == 1, jobs
    assert sum("rule_train" in job for job in jobs) == 1, jobs
    assert not any("rule_table" in job or "run_config" in job for job in jobs), jobs  # here


def test_an_orphan_of_a_killed_snakemake_and_the_next_one_train_once(
    pipeline: Pipeline, slurm: Slurm, tmp_path: Path
) -> None:
    target = ["results/small/orphan.csv", "--until", "train"]
    process = pipeline.start(*target)
    runs = pipeline.folder / "results" / "small" / "runs"
    before = set(runs.glob("discovla-*/seed0/checkpoints"))
    until(lambda: set(runs.glob("discovla-*/seed0/checkpoints")) - before, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (orphan, *_) = [job for job in slurm.jobs("rule_train") if job["state"] == "RUNNING"]
    assert pipeline.run("--unlock") == 0
    assert pipeline.run(*target) == 0, pipeline.said()[-4000:]
    assert slurm.show(orphan["id"])["JobState"] == "COMPLETED"
    trained, alone = pipeline.trained("orphan"), pipeline.alone("orphan", tmp_path / "alone")
    assert trained.keys() == alone.keys()
    assert all(torch.equal(trained[name], alone[name]) for name in alone)
    said = pipeline.train_log("orphan")
    assert "nothing left to do" in said or "already" in said, said
    curve = pd.read_csv(pipeline.run_folder("orphan") / "seed0" / "curve.csv")
    assert list(curve["step"]) == list(range(1, 501))


def test_one_training_on_two_nodes_is_that_of_one_process(
    pipeline: Pipeline, slurm: Slurm, tmp_path: Path
) -> None:
    pipeline.set(nodes_per_training=2)
    try:
        code = pipeline.run("results/small/nodes.csv", "--until", "train")
        assert code == 0, pipeline.said()[-4000:]
    finally:
        pipeline.set(nodes_per_training=1)
    job = slurm.jobs("rule_train")[-1]
    assert slurm.show(job["id"])["NumNodes"] == "2"
    trained, alone = pipeline.trained("nodes"), pipeline.alone("nodes", tmp_path / "alone")
    for name, tensor in alone.items():
        torch.testing.assert_close(trained[name], tensor, rtol=1e-2, atol=1e-4)
