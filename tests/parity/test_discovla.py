"""Parity with numbers of the authors' released code, and that wrong variants are noticed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from discovla import parity
from discovla.cli import main
from discovla.parity import case as golden

Shared = Callable[[str], Path]


@pytest.mark.parametrize("case", ["public_a", "public_b"])
def test_outputs_losses_and_gradients_agree(shared: Shared, case: str) -> None:
    errors = parity.compare(shared(f"golden/{case}.json"))
    groups = {name.split("/")[0] for name in errors}
    assert groups == {"out", "grad", "grad_vid", "grad_img", "grad_kl"}
    assert parity.within_limits(errors), {n: e for n, e in errors.items() if e > parity.limit_of(n)}


@pytest.mark.parametrize(
    "change",
    [
        {"maxima_pooling": "mean"},
        {"adapter_activation": "gelu"},
        {"detach_teacher": True},
        {"image_similarity": "paired"},
        {"kl_reduction": "batch_mean"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_wrong_variants_are_noticed(shared: Shared, change: dict[str, object]) -> None:
    assert not parity.within_limits(parity.compare(shared("golden/public_a.json"), **change))


def test_command_prints_errors_of_every_tensor(
    shared: Shared, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["parity", str(shared("golden/public_a.json")), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["passed"] is True
    assert printed["public_a"]["out/loss"] < 1e-4


def test_command_says_no(
    shared: Shared, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(golden, "OUTPUT_LIMIT", 1e-12)
    assert main(["parity", str(shared("golden/public_a.json"))]) == 1
    assert "NOT passed" in capsys.readouterr().out


@pytest.mark.parametrize("case", ["public_a", "public_b"])
def test_half_precision_stays_near(shared: Shared, case: str) -> None:
    """The deviations that docs/training.md names, with room for other processors."""
    with torch.autocast("cpu", torch.bfloat16):
        errors = parity.compare(shared(f"golden/{case}.json"))
    features = [errors[f"out/{n}"] for n in ("text_video_feat", "frame_feat", "video_feat")]
    gradients = sorted(e for name, e in errors.items() if name.startswith("grad/"))
    assert 1e-3 < max(features) < 0.05
    assert errors["out/loss"] < 0.05
    assert gradients[len(gradients) // 2] < 0.15


def test_missing_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = tmp_path / "case.json"
    assert main(["parity", str(case)]) == 1
    assert str(case) in capsys.readouterr().err
    case.write_text('{"vw": 64}')
    assert main(["parity", str(case)]) == 1
    assert "not a golden case" in capsys.readouterr().err
