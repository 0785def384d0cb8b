"""The benchmark of the training step compares what it times."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.methods import make_batch
from benchmarks.released import Released
from benchmarks.train import all_tokens, build, compare, differences, ours, sizes, ways
from discovla.errors import UserError
from discovla.experiments import Experiments
from discovla.models import encoder


def test_ways_agree_and_wrong_ones_are_seen(capsys: pytest.CaptureFixture[str]) -> None:
    size = sizes()["demo"]
    size = type(size)(size.config, 4, 3, 16)
    changes = {"frames": 3, "vision_layers": 2, "text_layers": 1}
    settings = Experiments.load().resolve("msrvtt", "discovla", "vit-b32", changes).settings
    model, batch = build(size, settings, "cpu"), make_batch(size, "cpu")
    steps = ways(model, batch, 3, None)
    compare(steps)
    assert capsys.readouterr().out.count("gradients") == 3

    loss, grads = ours(model, batch)
    kept = (loss.clone(), {n: g.clone() for n, g in grads.items()})
    with all_tokens():
        assert not encoder.lead_suffices(model.method)
    assert encoder.lead_suffices(model.method)
    assert differences(kept, kept) == (0, 0)
    wrong = (kept[0] * 1.001, {**kept[1], next(iter(kept[1])): torch.ones(1)})
    assert min(differences(wrong, kept)) > 1e-4
    with pytest.raises(SystemExit, match="wrong"):
        compare({**steps, "wrong": lambda: wrong})
    with pytest.raises(UserError, match=r"modeling\.py"):
        Released(Path("nowhere"), model, settings)
