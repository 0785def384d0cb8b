from __future__ import annotations

from pathlib import Path

import pytest

from discovla.data.requirements import backbone_weights, captioner_weights


@pytest.fixture
def _no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


@pytest.mark.usefixtures("_no_cache")
def test_states_of_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "w.pt"
    file.touch()
    entry = {"architecture": "ViT-B-32-quickgelu", "weights": "openai"}
    model = {"model": "llava-hf/some-model", "revision": None}

    def states() -> list[str]:
        return [
            backbone_weights("x", entry).status,
            backbone_weights("x", {**entry, "weights": str(file)}).status,
            backbone_weights("x", {**entry, "weights": str(tmp_path / "no.pt")}).status,
            captioner_weights("y", model).status,
            captioner_weights("y", {"model": str(tmp_path)}).status,
        ]

    assert states() == ["to fetch", "present", "missing", "to fetch", "missing"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert states() == ["missing", "present", "missing", "missing", "missing"]
    assert "HF_HUB_OFFLINE=1" in backbone_weights("x", entry).hint
    for repository, name in (
        ("timm--vit_base_patch32_clip_224.openai", "open_clip_model.safetensors"),
        ("llava-hf--some-model", "model.safetensors.index.json"),
    ):
        folder = tmp_path / "hub" / f"models--{repository}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text("abc")
        (folder / "snapshots" / "abc").mkdir(parents=True)
        (folder / "snapshots" / "abc" / name).touch()
    (tmp_path / "config.json").touch()
    assert states() == ["present", "present", "missing", "present", "present"]


def test_weights_repository_is_that_of_open_clip() -> None:
    import open_clip

    from discovla.data.requirements import _timm_repository

    for name in ("ViT-B-32-quickgelu", "ViT-B-16-quickgelu"):
        source = open_clip.get_pretrained_cfg(name, "openai")
        assert f"{_timm_repository(name, 'openai')}/" == source["hf_hub"]
