"""The benchmark of the training step compares what it times, and runs from its command line."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
import torch

from benchmarks import train
from benchmarks.machine import replaced
from benchmarks.methods import REAL, Size, make_batch
from benchmarks.released import Released
from benchmarks.train import LEVERS, Way, build, compare, differences, ours, sizes, ways
from discovla.errors import UserError
from discovla.experiments import Experiments
from discovla.models import encoder, kernels
from discovla.models.backbone import build_backbone
from discovla.models.retriever import build_retriever
from discovla.settings import RunSettings
from discovla.training import gradients
from tests import fake_cuda as fake


def test_ways_agree_and_wrong_ones_are_seen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "prefers_onednn", lambda: True)
    size = sizes()["demo"]
    size = type(size)(size.config, 4, 3, 16)
    changes = {"frames": 3, "vision_layers": 2, "text_layers": 1}
    settings = Experiments.load().resolve("msrvtt", "discovla", "vit-b32", changes).settings
    model, half = (build(size, settings, "cpu") for _ in range(2))
    half.halve_frozen()
    batch = make_batch(size, "cpu")
    steps = ways(model, half, batch, 3, None)
    assert [name.strip() for name in steps if name.strip() in LEVERS] == list(LEVERS)
    checked = compare(steps)
    assert list(checked) == list(steps)
    assert all(way.peak is None and way.errors for way in list(checked.values())[1:])
    assert capsys.readouterr().out.count("gradients") == len(steps) - 1

    loss, grads = ours(model, batch)
    kept = (loss.clone(), {n: g.clone() for n, g in grads.items()})
    with replaced(*LEVERS["last block for all tokens"]):
        assert not encoder.lead_suffices(model.method)
    assert encoder.lead_suffices(model.method)
    assert differences(kept, kept) == (0, 0)
    wrong = (kept[0] * 1.001, {**kept[1], next(iter(kept[1])): torch.ones(1)})
    assert min(differences(wrong, kept)) > 1e-4
    first = {"ours": Way(lambda: kept)}
    with pytest.raises(SystemExit, match="wrong"):
        compare({**first, "wrong": Way(lambda: wrong)})
    compare({**first, "half": Way(lambda: wrong, exact=False)})

    def too_large() -> train.Result:
        raise torch.OutOfMemoryError

    assert list(compare({"large": Way(too_large), **first})) == ["ours"]
    assert "does not fit" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"modeling\.py"):
        Released(Path("nowhere"), model, settings)


def test_the_command_prints_ratios_and_shares(capsys: pytest.CaptureFixture[str]) -> None:
    """All that a GPU would run too, at a tiny size; the peer is whatever follows its interface."""
    train.main(
        ["--size", "demo", "--batch", "3", "--frames", "2", "--words", "12", "--rounds", "1"]
    )
    out = capsys.readouterr().out
    for text in ("3 x 2 frames, 12 words", "TFLOP per step", "(bf16)", "blocks computed again"):
        assert text in out
    assert "CPU ratio" in out
    rows = [line for line in out.splitlines() if line.startswith("| ")]
    assert rows[0].startswith("| way | CPU s | ratio | pairs/s | peak GB |")
    assert all(len(row.split("|")) == 10 and "not measured" in row for row in rows[1:])
    (first, *_, bf16) = [row for row in rows if row.startswith("| ours")]
    assert [row.split("|")[-2].strip().endswith("%") for row in (first, bf16)] == [True, True]


def test_parts_can_be_run_alone(capsys: pytest.CaptureFixture[str]) -> None:
    tiny = ["--size", "demo", "--batch", "4", "--frames", "2", "--words", "12", "--rounds", "1"]
    train.main([*tiny, "--only", "micro", "--micro-batch", "2"])
    out = capsys.readouterr().out
    assert "TFLOP" not in out  # micro-batches compute more than a step needs
    assert out.count("| micro-batches of 2 |") == 1
    train.main([*tiny, "--only", "bf16"])  # as where float32 does not fit the memory
    assert "TFLOP per step" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="torch sees 0 CUDA devices"):
        train.main(["--device", "cuda", "--only", "nothing"])
    with pytest.raises(SystemExit, match="no way fits"):
        train.main([*tiny, "--only", "nothing"])
    with pytest.raises(SystemExit, match="nowhere"):
        train.main([*tiny, "--peer", "nowhere"])


def by_hand(settings: RunSettings, size: Size, words: int, frame_words: int) -> int:
    """FLOPs of the matrix products of a DiscoVLA step over ViT-B/32, 2 per multiplied pair.

    Forward: what is written. Backward: as much again for the gradient of each product's input, and
    again for that of its weight where it is trained; none of the frozen products before the first
    trained one. Attention has two products forward and four backward.
    """
    groups, rank, bottleneck = size.frames, settings.lora_rank, settings.adapter_rank

    def tower(n: int, tokens: int, width: int, top: int, apart: int) -> int:
        total = 0
        for block in range(12):
            queries = 1 if block == 11 else tokens  # only the lead token is read
            qkv = n * tokens * width * 3 * width
            low_rank = n * tokens * (width * rank + rank * 3 * width)
            attention = 2 * n * queries * tokens * width
            others = n * queries * (width * width + 2 * 4 * width * width)
            total += qkv + 3 * low_rank + 3 * attention + 2 * others
            total += qkv if block > 0 else -n * tokens * width * rank
            if block >= 12 - top:  # the lead tokens look at the whole sample
                total += 3 * 2 * n * (apart * tokens) * width
                total += 2 * n * width * width + 3 * 2 * n * width * bottleneck
        return 2 * total

    pictures, captions = size.batch * groups, size.batch
    patches = 2 * pictures * 49 * (3 * 32 * 32) * 768
    projections = 2 * 2 * (pictures * 768 + pictures * 512 + captions * 512) * 512
    return (
        tower(pictures, 50, 768, settings.vision_layers, groups)
        + tower(captions, words, 512, 0, 1)
        + tower(pictures, frame_words, 512, settings.text_layers, groups)
        + patches
        + projections
    )


def test_flops_are_those_of_a_count_by_hand() -> None:
    """At real size, on the device without numbers; the losses' products are the small rest."""
    size = Size(REAL, 4, 12, 32)
    settings = Experiments.load().resolve("msrvtt", "discovla", "vit-b32", {}).settings
    model = build_retriever(settings, build_backbone(REAL, device="meta"))
    batch = make_batch(size, "cpu")
    words, frame_words = (
        int(batch[f"{name}_mask"].sum(-1).max()) for name in ("text", "frame_text")
    )
    with fake.on_meta():
        counted = train.flops_of(lambda: ours(model, batch))
    assert counted == pytest.approx(by_hand(settings, size, words, frame_words), rel=1e-4)
    # 128 x 12 frames: 35 TFLOP with all tokens in the last block, which takes 6 %.
    assert 31e12 < counted * 128 / 4 < 35e12


def test_steps_run_on_a_made_up_gpu() -> None:
    size = Size(sizes()["demo"].config, 4, 3, 16)
    changes = {"frames": 3, "vision_layers": 2, "text_layers": 1}
    settings = Experiments.load().resolve("msrvtt", "discovla", "vit-b32", changes).settings
    model, half = (build(size, settings, "cpu") for _ in range(2))
    batch = make_batch(size, "cpu")
    with (
        fake.fake_cuda() as waits,
        fake.without_autograd(),
        mock.patch.object(gradients, "to_device", fake.untrimmed),
    ):
        half.halve_frozen()
        for made in (model, half):
            fake.placed(made, fake.CUDA)
        steps = ways(model, half, fake.like(batch, fake.CUDA), 2, None)
        for name in ("ours", "  bf16, micro-batches of 2"):
            loss, _ = steps[name].step()
            assert loss.is_cuda
    assert waits.found == []


def test_released_ways_are_those_with_and_without_what_slows_it_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size = sizes()["demo"]
    size = type(size)(size.config, 2, 2, 12)
    changes = {"frames": 2, "words": 12, "vision_layers": 2, "text_layers": 1}
    settings = Experiments.load().resolve("msrvtt", "discovla", "vit-b32", changes).settings
    model, batch = build(size, settings, "cpu"), make_batch(size, "cpu")
    calls: list[tuple[bool, bool]] = []

    class Peer:
        def step(self, pixels: dict[str, torch.Tensor], anomaly: bool) -> train.Result:
            assert pixels["pixels"].dtype == torch.float64
            calls.append((anomaly, torch.backends.cuda.matmul.allow_tf32))
            return ours(model, batch)

    found = train.released_ways(Peer(), model, batch)  # type: ignore[arg-type]
    compare(found)
    assert calls == [(True, False), (False, False)]
