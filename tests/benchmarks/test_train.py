"""The benchmark of the training step compares what it times, and runs from its command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import train
from benchmarks.methods import make_batch
from benchmarks.released import Released
from benchmarks.train import LEVERS, Way, build, compare, differences, ours, replaced, sizes, ways
from discovla.errors import UserError
from discovla.experiments import Experiments
from discovla.models import encoder, kernels


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
    assert compare(steps) == steps
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
