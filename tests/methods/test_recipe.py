"""docs/own-method.md, the recipe for a method of one's own, carried out as it stands there."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml

from discovla.experiments import Experiments
from discovla.methods import METHODS
from discovla.methods.catalogue import catalogue
from tests.models import tiny


def blocks(language: str) -> list[str]:
    text = Path("docs/own-method.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's config with the example in it, and its module in place."""
    (code,) = blocks("python")
    assert len(code.splitlines()) < 40
    path = tmp_path / "mlp_scale.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location("discovla.methods.mlp_scale", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, spec.name, module)
    monkeypatch.setitem(METHODS, "mlp_scale", "mlp_scale:MLPScale")

    shutil.copytree("config", tmp_path / "config")
    entry, row = blocks("yaml")
    with (tmp_path / "config" / "methods.yaml").open("a") as handle:
        handle.write(entry)
    table = tmp_path / "config" / "tables" / "variants.yaml"
    content = yaml.safe_load(table.read_text())
    content["rows"].append(yaml.safe_load(row))
    table.write_text(yaml.safe_dump(content))
    return tmp_path / "config"


def test_the_example_is_planned_counted_and_trained(config: Path) -> None:
    run = Experiments.load(folder=config).row("demo", "variants", "mlp-scale").run
    assert run is not None
    assert run.settings.lr == 2e-3
    counted = {row["name"]: row for row in catalogue("vit-b32", config)}
    assert counted["mlp-scale"]["trainable"] == 12 * (768 + 512)
    assert counted["mlp-scale"]["hooks"] == ["mlp_out"]

    batch, plain = tiny.batch(), tiny.model("zero_shot")
    model = tiny.model("mlp_scale", shaken=False)
    torch.testing.assert_close(model(batch).video, plain(batch).video)
    model.loss(batch)["loss"].backward()
    assert all(p.grad is not None and p.grad.any() for p in model.method.parameters())
