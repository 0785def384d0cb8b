"""Settings of single methods are refused while the workflow plans, with what is allowed."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from discovla.errors import UserError
from discovla.experiments import Experiments, located
from discovla.methods import METHODS
from discovla.methods.options import OPTIONS
from discovla.models.backbone import meta_backbone
from discovla.models.dims import read_dims

BAD: list[tuple[str, dict[str, Any], str]] = [
    ("prompt", {"prompts": 46}, r"prompts is 46: with words 32 .* the 77 positions .* at most 45"),
    ("prompt", {"prompts": 5, "words": 77}, r"give at most 0 prompts, or fewer words"),
    ("prompt", {"prompts": 0}, r"prompts is 0; it must be at least 1"),
    ("prompt", {"prompts": 2.5}, r"prompts must be int, got 2.5"),
    ("prompt", {"prompts": None}, r"prompts must be int, got None"),
    ("adapter", {"bottleneck": 0}, r"bottleneck is 0; it must be at least 1"),
    ("rap", {"displaced": 1.5}, r"displaced is 1.5; allowed: 0 to 1"),
    ("rap", {"displaced": -0.1}, r"displaced is -0.1; it must be at least 0"),
    ("rap", {"displaced": float("nan")}, r"displaced is nan; it must be at least 0"),
    ("rap", {"modulation_rank": 0}, r"modulation_rank is 0; it must be at least 1"),
    ("vop", {"prompts": 46}, r"prompts is 46: .* at most 45"),
    ("vop", {"frame_layers": 13}, r"frame_layers is 13; vit-b32 has 12 .* give 0 to 12"),
    ("vop", {"frame_layers": -1}, r"frame_layers is -1; it must be at least 0"),
    ("vop", {"frame_prompts": 1}, r"frame_prompts is 1 with method vop; vop has none: give 0"),
    ("vop_fp", {"frame_layers": 0}, r"frame_layers is 0; .* give 1 to 12 with method vop_fp"),
    ("vop_fp", {"frame_prompts": 9}, r"frame_prompts is 9 .* vop_fp and vop_fc: 1 to 8"),
    ("vop_fc", {"frame_prompts": 0}, r"frame_prompts is 0 .* vop_fp and vop_fc: 1 to 8"),
    ("dgl", {"generator": "mlp"}, r"generator is 'mlp'; allowed: linear, transformer"),
    ("dgl", {"pool": "mean"}, r"pool is 'mean'; allowed: global, globals, frames, both"),
    ("dgl", {"prompts": 0}, r"prompts is 0; it must be at least 1"),
    ("dgl", {"words": 78}, r"words is 78; vit-b32 has 77 text positions: give 3 to 77"),
    ("tempme", {"merge_clips": [5, 2, 1]}, r"12 frames cannot .* factors must divide the frames"),
    ("tempme", {"frames": 10}, r"\[2, 2, 3\]: 10 frames cannot be joined so \(5 clips by 2\)"),
    ("tempme", {"merge_layers": [8, 12, 13]}, r"vit-b32 has vision blocks 0 to 11"),
    ("tempme", {"merge_layers": [8, 9]}, r"as many factors as blocks, blocks rising"),
    ("tempme", {"merge_clips": 2}, r"merge_clips must be a list of numbers, got 2"),
    ("tempme", {"joined_percent": 101}, r"joined_percent is 101; allowed: 0 to 100"),
    ("mv_adapter", {"adapter_heads": 3}, r"adapter_heads is 3; it must divide bottleneck, 64"),
    ("mv_adapter", {"tie": "both"}, r"tie is 'both'; allowed: input, output"),
    ("mv_adapter", {"tied_layers": 13}, r"tied_layers is 13; .* 12 and 12 blocks: give 0 to 12"),
    ("mv_adapter", {"clip_bias_lr": -1}, r"clip_bias_lr is -1.0; it must be at least 0"),
    ("discovla", {"vision_layers": 13}, r"vision_layers is 13; .* give 0 to 12"),
    ("lora", {"prompts": 5}, r"'prompts' is not a known setting; known: .*lora_rank"),
    ("prompt", {"bottleneck": 8}, r"'bottleneck' is not a known setting; known: .*prompts"),
    ("adapter", {"bottelneck": 8}, r"'bottelneck' is not a known setting; known: .*bottleneck"),
    ("promt", {}, r"no method 'promt'; known: .*'prompt'"),
]


@pytest.fixture(scope="module")
def experiments(root: Path) -> Experiments:
    return Experiments.load(folder=root / "config")


@pytest.mark.parametrize(("method", "changes", "message"), BAD)
def test_bad_settings_are_named_with_what_is_allowed(
    experiments: Experiments, method: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        experiments.resolve("msrvtt", method, "vit-b32", changes, where="a table: row x")


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("prompt", {"prompts": 45}),
        ("prompt", {"prompts": 5.0}),
        ("rap", {"displaced": 1}),
        ("rap", {"displaced": 0}),
        ("vop", {"frame_layers": 0}),
        ("vop", {"frame_layers": 12}),
        ("vop_fp", {"frame_prompts": 8, "frame_layers": 12}),
        ("vop_fc", {"frame_layers": 1}),
        ("dgl", {"words": 77, "prompts": 60}),
        ("mv_adapter", {"tied_layers": 12, "adapter_heads": 64}),
        ("mv_adapter", {"tied_layers": 0, "clip_bias_lr": 0}),
        ("discovla", {"vision_layers": 12, "text_layers": 0}),
    ],
)
def test_the_edges_are_allowed(
    experiments: Experiments, method: str, changes: dict[str, Any]
) -> None:
    settings = experiments.resolve("msrvtt", method, "vit-b32", changes).settings
    known = settings.to_dict()
    assert {name: known[name] for name in changes} == changes


def test_what_fits_depends_on_the_dataset(experiments: Experiments) -> None:
    with pytest.raises(UserError, match=r"prompts is 14: with words 64 .* at most 13"):
        experiments.resolve("activitynet", "vop", "vit-b32", {"prompts": 14})
    with pytest.raises(UserError, match=r"merge_clips is \[2, 2, 3\]: 32 frames"):
        experiments.resolve("activitynet", "tempme", "vit-b32", {"merge_clips": [2, 2, 3]})
    with pytest.raises(UserError, match=r"tied_layers is 4; .* 4 and 3 blocks: give 0 to 3"):
        experiments.resolve("demo", "mv_adapter", "vit-b32", {"tied_layers": 4})


def test_a_row_is_refused_by_name(experiments: Experiments) -> None:
    row = {"row": "long", "label": "long", "method": "prompt", "set": {"promts": 9}}
    table = experiments.tables["variants"]
    tables = {**experiments.tables, "variants": {**table, "rows": [*table["rows"], row]}}
    changed = dataclasses.replace(experiments, tables=tables, _runs={})
    with pytest.raises(UserError, match=r"variants.yaml: row long: 'promts' is not a known"):
        changed.rows("msrvtt", "variants")


def test_every_entry_belongs_to_a_method(experiments: Experiments) -> None:
    assert OPTIONS.keys() <= METHODS.keys()
    for method in OPTIONS:
        run = experiments.resolve("msrvtt", method, "vit-b32", {})
        assert type(run.settings.options) is OPTIONS[method]


def test_options_enter_the_run_id(experiments: Experiments) -> None:
    ids = {
        experiments.resolve("msrvtt", "vop", "vit-b32", changes).run_id
        for changes in ({}, {"prompts": 4}, {"frame_layers": 8}, {"frame_layers": 0})
    }
    assert len(ids) == 4
    same = experiments.resolve("msrvtt", "vop", "vit-b32", {"frame_prompts": 0})
    assert same.run_id in ids


def test_planning_needs_no_torch(root: Path) -> None:
    program = """
import sys
from discovla.errors import UserError
from discovla.experiments import Experiments
experiments = Experiments.load(folder=sys.argv[1])
for method in ("prompt", "vop_fc", "dgl", "mv_adapter", "rap"):
    experiments.resolve("msrvtt", method, "vit-b32", {})
try:
    experiments.resolve("msrvtt", "prompt", "vit-b32", {"prompts": 70})
except UserError as error:
    print(error)
print(sorted({"torch", "open_clip"} & sys.modules.keys()))
"""
    command = [sys.executable, "-c", program, str(root / "config")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    message, modules = done.stdout.splitlines()
    assert "give at most 45 prompts" in message
    assert modules == "[]"


@pytest.mark.parametrize(
    "architecture",
    [
        "ViT-B-32-quickgelu",
        "ViT-B-16-quickgelu",
        "local-dir:package:demo/weights/clip",
    ],
)
def test_sizes_known_while_planning_are_those_of_the_model(architecture: str) -> None:
    found = located(architecture)
    assert read_dims(found) == meta_backbone(found).dims


def test_unknown_architectures_have_no_sizes(tmp_path: Path) -> None:
    assert read_dims("ViT-X-99") is None
    assert read_dims(f"local-dir:{tmp_path}") is None
