"""The benchmark of captions: both commands, and the FLOPs that rates are held to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import captions
from benchmarks.caption_case import Case, case_of

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


def naive_work(case: Case) -> float:
    """Token by token: 2 FLOP for every weight it meets, 4 per key and width that it looks at."""
    text, vision = case.model.config.text_config, case.model.config.vision_config
    keys = text.num_key_value_heads * text.hidden_size // text.num_attention_heads
    weights = 2 * text.hidden_size**2 + 2 * text.hidden_size * keys
    weights += 3 * text.hidden_size * text.intermediate_size
    total = 0.0

    def read(places: range) -> float:
        looked_at = sum(place + 0.5 for place in places)  # half of its own key, as n^2 / 2 has it
        each = 2 * weights * len(places) + 4 * text.hidden_size * looked_at
        return text.num_hidden_layers * each

    for frame in case.frames():
        prefix = frame.length(frame.shared)
        total += read(range(prefix))  # once for all prompts about the frame
        for question in frame.questions:
            behind = prefix + frame.tail(question)
            # The last token of an answer is chosen, and never read.
            total += read(range(prefix, behind + case.answer - 1))
            total += case.answer * 2 * text.hidden_size * text.vocab_size
    tokens = (vision.image_size // vision.patch_size) ** 2 + 1
    block = 4 * vision.hidden_size**2 + 2 * vision.hidden_size * vision.intermediate_size
    for image in case.images:
        for _ in range(case.tiles(image)):
            for _ in range(vision.num_hidden_layers - 1):  # the last one is not read
                total += tokens * (2 * block + 4 * tokens * vision.hidden_size)
            total += 2 * tokens * (vision.hidden_size + text.hidden_size) * text.hidden_size
    return total


@pytest.mark.parametrize("prompts", [1, 3])
def test_work_is_that_of_a_count_token_by_token(prompts: int) -> None:
    case = case_of("test", "cpu", torch.float32, frames=2, captions=prompts, answer=5)
    assert captions.work(case) == pytest.approx(naive_work(case), rel=1e-9)


def test_the_lines_of_a_gpu_run_on_a_cpu(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captions, "BATCHES", (2, 4, 8))
    small = ["--size", "test", "--device", "cpu", "--frames", "2", "--captions", "2"]
    captions.main([*small, "--tokens", "3"])
    out = capsys.readouterr().out
    rows = [line.split("|") for line in out.splitlines() if line.startswith("| ")]
    assert [row[1].strip() for row in rows] == [
        *("way", "one prompt at a time", "plain, batch of 2", "plain, batch of 4"),
        *("shared prefix", "one prompt per image, 640x360"),
    ]
    assert all(row[3].strip() == "not measured" for row in rows[1:])
    assert [row[4].strip().endswith("%") for row in rows[1:]] == [False] * 3 + [True] * 2
    assert sum("4 of 4 as shared" in row[5] for row in rows) == 3
    assert "x the best plain batch" in out


def test_other_answers_and_no_memory_are_seen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captions, "BATCHES", (2,))
    tried: list[int] = []

    def wrong(case: Case, batch: int, most: int | None = None) -> list[list[int]]:
        tried.append(batch)
        if batch == 1:
            raise torch.OutOfMemoryError
        return [[0]] * 2

    monkeypatch.setattr(Case, "naive", wrong)
    with pytest.raises(SystemExit, match="changed answers"):
        captions.rates("test", "cpu", 1, 2, 2)
    assert "one prompt at a time: does not fit the memory" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="torch sees 0 CUDA devices"):
        captions.main(["--size", "7b"])
