"""What a step of a method costs, counted."""

from __future__ import annotations

from functools import partial

import pytest

from benchmarks.methods import Size, build, flops_of, make_batch, step
from benchmarks.train import sizes
from discovla.experiments import Experiments
from discovla.models import kernels
from discovla.models.backbone import build_backbone


def test_flops_do_not_depend_on_the_library_that_multiplies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """oneDNN's products, which this CPU may prefer, are unknown to torch's counter."""
    demo = sizes()["demo"]
    size = Size(demo.config, 4, 2, 12)
    changes = {"frames": 2, "words": 12}
    settings = Experiments.load().resolve("msrvtt", "lora", "vit-b32", changes).settings
    model = build(settings, lambda: build_backbone(size.config), "cpu")
    counted = []
    for prefers in (False, True):
        monkeypatch.setattr(kernels, "prefers_onednn", lambda prefers=prefers: prefers)
        counted.append(flops_of(partial(step, model, make_batch(size, "cpu"), bf16=False)))
        assert kernels.prefers_onednn() == prefers
    assert counted[0] == counted[1] > 10**6
