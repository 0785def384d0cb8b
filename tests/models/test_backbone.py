"""Backbones: tokenizer, files of weights and the messages when something does not fit."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file

from discovla.errors import UserError
from discovla.models.backbone import Tokenizer, build_backbone, load_backbone, meta_backbone
from discovla.storage.files import sha256_file
from tests.models import tiny


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny model as open_clip stores it, with CLIP's vocabulary."""
    config = {**tiny.CONFIG, "text_cfg": {**tiny.CONFIG["text_cfg"], "vocab_size": 49408}}
    stored = {"model_cfg": config, "preprocess_cfg": {"mean": [0.1] * 3, "std": [0.2] * 3}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(stored))
    state = build_backbone(config, seed=5).clip.state_dict()
    save_file({n: t.half() for n, t in state.items()}, tmp_path / "weights.safetensors")
    return tmp_path


def spec(folder: Path, weights: str | None = "weights.safetensors", **changes: Any) -> Any:
    return {
        "name": "mine",
        "architecture": f"local-dir:{folder}",
        "weights": weights and str(folder / weights),
        "sha256": None,
        "tokenizer": None,
        **changes,
    }


def test_tokens_are_laid_out_as_in_the_released_code(tokenizer: Tokenizer) -> None:
    bpe = SimpleTokenizer()
    long = "a man is cooking in the kitchen " * 5
    ids, mask = tokenizer(["a cat", "", long], 8)
    words = bpe.encode(long)
    sot, eot = bpe.sot_token_id, bpe.eot_token_id
    assert ids.tolist() == [
        [sot, *bpe.encode("a cat"), eot, 0, 0, 0, 0],
        [sot, eot, 0, 0, 0, 0, 0, 0],
        [sot, *words[:6], eot],
    ]
    assert mask.sum(1).tolist() == [4, 2, 8]
    assert torch.equal(ids, bpe(["a cat", "", long], context_length=8))


def test_mask_is_not_read_off_the_ids(tokenizer: Tokenizer) -> None:
    ids, mask = tokenizer(["go !~"], 8)
    assert ids[0, 2] == 0
    assert mask[0].tolist() == [True] * 5 + [False] * 3


@pytest.mark.parametrize(
    "text",
    ["a <end_of_text> b", "<start_of_text><end_of_text>", "'; rm -rf /", "猫 🐈 \x00 ../", "-"],
)
def test_captions_cannot_end_the_sequence_early(tokenizer: Tokenizer, text: str) -> None:
    ids, mask = tokenizer([text], 32)
    last = int(mask.sum()) - 1
    assert int(ids[0].argmax()) == last
    assert (ids[0] == ids.max()).sum() == 1


def test_folder_is_loaded_in_float32(folder: Path) -> None:
    backbone = load_backbone(spec(folder))
    built = build_backbone({**tiny.CONFIG, "text_cfg": backbone_text(49408)}, seed=5)
    assert backbone.mean == (0.1, 0.1, 0.1)
    assert (backbone.image_size, backbone.words_limit) == (tiny.SIDE, tiny.CONTEXT)
    for name, tensor in backbone.clip.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, built.clip.state_dict()[name].half().float())
    ids, _ = backbone.tokenize(["a cat"], 8)
    assert ids.shape == (1, 8)
    with pytest.raises(UserError, match="words is 17; mine takes 3 to 16"):
        backbone.tokenize(["a cat"], 17)


def backbone_text(vocabulary: int) -> dict[str, Any]:
    return {**tiny.CONFIG["text_cfg"], "vocab_size": vocabulary}


def test_torchscript_archive_is_read_without_pickle(folder: Path) -> None:
    state = load_backbone(spec(folder)).clip.state_dict()
    holder = torch.nn.Module()
    extras = {"input_resolution": torch.tensor(16), "vocab_size": torch.tensor(49408)}
    for name, tensor in {**state, **extras}.items():
        *path, leaf = name.split(".")
        module = holder
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, torch.nn.Module())
            module = getattr(module, part)
        module.register_buffer(leaf, tensor.half())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.save(torch.jit.script(holder), folder / "archive.pt")
    loaded = load_backbone(spec(folder, "archive.pt")).clip.state_dict()
    assert all(torch.equal(loaded[n], state[n]) for n in state)


def test_pickles_are_refused(folder: Path) -> None:
    torch.save({"logit_scale": torch.tensor(1.0)}, folder / "pickle.pt")
    with pytest.raises(UserError, match=r"pickle\.pt is a pickle"):
        load_backbone(spec(folder, "pickle.pt"))


def test_digest_is_checked(folder: Path) -> None:
    right = sha256_file(folder / "weights.safetensors")
    load_backbone(spec(folder, sha256=right))
    with pytest.raises(UserError) as caught:
        load_backbone(spec(folder, sha256="0" * 64))
    for part in ("weights.safetensors", right, "0" * 64, "config/backbones.yaml: mine.sha256"):
        assert part in str(caught.value)


def test_files_that_are_absent_or_damaged_are_named(folder: Path) -> None:
    with pytest.raises(UserError, match=r"mine\.weights: .*nowhere: no such file"):
        load_backbone(spec(folder, "nowhere"))
    (folder / "damaged.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UserError, match=r"damaged\.safetensors cannot be read"):
        load_backbone(spec(folder, "damaged.safetensors"))
    with pytest.raises(UserError, match=r"mine\.architecture: .*open_clip_config\.json not found"):
        load_backbone(spec(folder / "elsewhere"))
    with pytest.raises(UserError, match=r"mine\.tokenizer: .*bpe: no such file"):
        load_backbone(spec(folder, tokenizer=str(folder / "bpe")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logit_scale": None}, "1 missing: logit_scale"),
        ({"extra": torch.zeros(1)}, "1 unknown: extra"),
        (
            {"visual.proj": torch.zeros(2, 2)},
            r"1 of another shape: visual.proj \(2, 2\) for \(32, 24\)",
        ),
    ],
    ids=["missing", "unknown", "shape"],
)
def test_weights_must_fit_strictly(folder: Path, change: dict[str, Any], message: str) -> None:
    state = {**load_backbone(spec(folder)).clip.state_dict(), **change}
    save_file({n: t for n, t in state.items() if t is not None}, folder / "other.safetensors")
    with pytest.raises(UserError, match=rf"other\.safetensors does not fit .*mine: {message}"):
        load_backbone(spec(folder, "other.safetensors"))


def test_tokenizer_must_fit_the_vocabulary(folder: Path) -> None:
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["vocab_size"] = 60
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="the tokenizer has 49408 tokens, the model 60"):
        load_backbone(spec(folder, None))


def test_tag_without_network_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise FileNotFoundError("offline mode is enabled")

    monkeypatch.setattr("open_clip.download_pretrained", no_network)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    entry = spec(tmp_path, architecture="ViT-B-32-quickgelu", weights="openai")
    entry["weights"] = "openai"
    with pytest.raises(UserError) as caught:
        load_backbone(entry)
    for part in ("mine.weights", "'openai'", "ViT-B-32.pt", "HF_HUB_OFFLINE is 1", "offline mode"):
        assert part in str(caught.value)


def test_unknown_architecture_suggests_near_names(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ViT-B-32-quickgelu"):
        load_backbone(spec(tmp_path, architecture="ViT-B-32-quickgel"))


@pytest.mark.parametrize(
    "change",
    [
        {"vision_cfg": {**tiny.CONFIG["vision_cfg"], "pool_type": "avg"}},
        {"vision_cfg": {**tiny.CONFIG["vision_cfg"], "ls_init_value": 0.1}},
        {"text_cfg": {**tiny.CONFIG["text_cfg"], "no_causal_mask": True}},
        {"custom_text": True},
    ],
    ids=["pool", "scale", "mask", "custom"],
)
def test_layouts_the_encoder_does_not_walk_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="plain"):
        build_backbone({**tiny.CONFIG, **change})


def test_building_leaves_the_random_state_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    build_backbone(tiny.CONFIG)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize(
    ("architecture", "total", "tokens"),
    [("ViT-B-32-quickgelu", 151_277_313, 50), ("ViT-B-16-quickgelu", 149_620_737, 197)],
)
def test_real_sizes(architecture: str, total: int, tokens: int) -> None:
    backbone = meta_backbone(architecture)
    assert sum(p.numel() for p in backbone.clip.parameters()) == total
    assert backbone.dims.vision.tokens == tokens
    assert backbone.clip.logit_scale.is_meta
