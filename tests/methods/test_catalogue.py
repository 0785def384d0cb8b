"""Exact parameter counts at real size, and the command that prints them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from discovla.cli import main
from discovla.errors import UserError
from discovla.methods.catalogue import catalogue
from discovla.models.backbone import meta_backbone
from discovla.models.retriever import build_retriever
from tests.models import tiny

COUNTS = {  # trainable, uncounted, inert
    "zero-shot": (0, 0, 0),
    "lora": (491_520, 0, 0),
    "b1": (543_776, 0, 0),
    "b2": (561_200, 0, 17_424),
    "b3": (543_776, 0, 0),
    "discovla": (561_200, 0, 17_424),
    "discovla-printed": (557_056, 0, 16_384),
    "full": (123_540_993, 0, 0),
    "prompt": (76_800, 0, 0),
    "adapter": (261_312, 0, 0),
    "rap": (1_061_412, 0, 0),
    "vop-f-p": (393_216, 9_216, 0),
    "vop-f-c": (14_269_440, 9_216, 0),
    "dgl": (827_392, 0, 393_728),
    "tempme": (507_648, 0, 0),
    "mv-adapter": (3_572_736, 0, 0),
    "vop": (122_880, 0, 0),
    "dgl-transformer": (9_575_168, 0, 0),
    "mv-adapter-output": (3_496_704, 0, 0),
}
NOT_AS_PRINTED = {
    "vop-f-c": "14.10 M matches no consistent count",
    "tempme": "0.51 M is printed as 0.50",
    "vop-f-p": "printed with one digit",
    "mv-adapter": "printed with one digit",
}


def real_size(**changes: Any) -> dict[str, int]:
    """Trained tensors of a DiscoVLA at the size of ViT-B/32, with the paper's ranks and layers."""
    values = {"lora_rank": 8, "adapter_rank": 8, "vision_layers": 4, **changes}
    model = build_retriever(tiny.settings(**values), meta_backbone("ViT-B-32-quickgelu"))
    return {n: p.numel() for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("backbone", ["vit-b32", "vit-b16"])
def test_counts_are_exact_and_round_to_the_print(root: Path, backbone: str) -> None:
    rows = {row["name"]: row for row in catalogue(backbone, root / "config")}
    keys = ("trainable", "uncounted", "inert")
    assert {n: tuple(r[k] for k in keys) for n, r in rows.items()} == COUNTS
    for name, row in rows.items():
        if row["paper_millions"] is not None and name not in NOT_AS_PRINTED:
            assert round(row["trainable"] / 1e6, 2) == row["paper_millions"], name


def test_gaps_and_hooks(root: Path) -> None:
    rows = {row["name"]: row for row in catalogue("vit-b32", root / "config")}
    assert [rows[n]["gaps"] for n in ("lora", "b1", "b3")] == [
        [],
        ["vision"],
        ["vision", "alignment"],
    ]
    assert rows["discovla"]["gaps"] == ["vision", "language", "alignment"]
    for name in ("rap", "vop-f-p", "vop-f-c", "dgl", "tempme", "mv-adapter"):
        assert rows[name]["gaps"] == ["vision"], name
    assert rows["vop"]["gaps"] == rows["prompt"]["gaps"] == []
    assert rows["full"]["hooks"] == ["trainable"]
    assert rows["lora"]["hooks"] == ["qkv"]
    assert rows["discovla"]["hooks"] == ["qkv", "attend", "text_inputs", "losses"]


def test_number_and_names_of_trained_tensors() -> None:
    assert len(real_size()) == 72
    assert len(real_size(alpha=0, beta=0)) == 64


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({"alpha": 0, "beta": 0, "text_layers": 2}, 543_776),
        ({"alpha": 0, "beta": 1, "text_layers": 2}, 561_200),
        ({"adapter_bias": False}, 557_056),
        ({"adapter_bias": False, "text_layers": 0}, 540_672),
        ({"vision_layers": 0, "text_layers": 0}, 491_520),
        ({"attention": "average"}, 491_520),
        ({"attention": "video"}, 491_520),
        ({"attention": "image"}, 491_520),
    ],
)
def test_counts_of_settings(changes: dict[str, Any], count: int) -> None:
    assert sum(real_size(**changes).values()) == count


@pytest.mark.parametrize(
    ("setting", "value", "depth"), [("vision_layers", 13, 12), ("text_layers", 13, 12)]
)
def test_more_layers_than_the_tower_has(setting: str, value: int, depth: int) -> None:
    with pytest.raises(UserError, match=rf"{setting} is {value}; .* give 0 to {depth}"):
        real_size(**{setting: value})


def test_command(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    assert main(["methods", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(COUNTS)
    assert main(["methods"]) == 0
    assert "561,200" in capsys.readouterr().out
    assert main(["methods", "--backbone", "vit-b99"]) == 1
    assert "no backbone 'vit-b99'; known: vit-b32" in capsys.readouterr().err
