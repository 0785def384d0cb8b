"""CLIP backbones: architecture, strictly loaded weights, tokenizer and pixel statistics."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from discovla.errors import UserError
from discovla.models.dims import CONFIG_NAME, LOCAL_PREFIX, Dims, TowerDims
from discovla.models.weights import find_weights, load_strictly, read_state_dict
from discovla.storage.files import read_json
from discovla.tokenizer import ClipTokenizer

BPE_NAME = "bpe.txt.gz"
RGB = tuple[float, float, float]


class Tokenizer(ClipTokenizer):
    """CLIP's byte-pair encoding as the released code lays it out: SOT, words, EOT, zeros."""

    def __call__(self, texts: Sequence[str], words: int) -> tuple[Tensor, Tensor]:
        """Ids (n, words) int64 and mask (n, words) bool; a text is cut to words - 2 tokens.

        The mask comes from the end mark: id 0 is padding and also the token of "!".
        """
        ids = torch.from_numpy(self.encode(texts, words).astype(np.int64))
        ends = (ids == self.end).int().argmax(-1, keepdim=True)
        return ids, torch.arange(words) <= ends


@dataclass(frozen=True)
class Backbone:
    """A CLIP in float32 and what belongs to it."""

    name: str
    clip: Any
    """open_clip's CLIP module (an nn.Module; open_clip has no types)."""
    dims: Dims
    image_size: int
    mean: RGB
    std: RGB
    tokenizer: Tokenizer | None = None

    @property
    def words_limit(self) -> int:
        """Longest caption in tokens: rows of the text tower's positional table."""
        return self.dims.text.tokens

    def tokenize(self, texts: Sequence[str], words: int) -> tuple[Tensor, Tensor]:
        """Ids and mask (n, words) of captions; see `Tokenizer`.

        Raises:
            UserError: more words than the model has positions, or a model without tokenizer.
        """
        return self.tokenizer_for(words)(texts, words)

    def tokenizer_for(self, words: int) -> Tokenizer:
        """The tokenizer, for texts of at most `words` tokens; errors as of `tokenize`."""
        if not 3 <= words <= self.words_limit:
            raise UserError(
                f"setting words is {words}; {self.name} takes 3 to {self.words_limit} tokens"
            )
        if self.tokenizer is None:
            raise UserError(f"{self.name} was built without a tokenizer; give `tokenizer:` a file")
        return self.tokenizer


def load_backbone(spec: Mapping[str, Any]) -> Backbone:
    """Build a backbone from an entry of config/backbones.yaml.

    Args:
        spec: `name`; `architecture` (an open_clip model name, or local-dir:FOLDER); `weights` (an
            open_clip tag, OpenAI's TorchScript archive, a safetensors file, or None for random
            values); `sha256` of a weights file or None; `tokenizer` (a merges file, or None for
            bpe.txt.gz of the local folder, else CLIP's own).

    Raises:
        UserError: anything unknown, absent, damaged or not fitting, with the key to mend.
    """
    name, where = spec["name"], f"config/backbones.yaml: {spec['name']}"
    config, mean, std = read_architecture(spec["architecture"], where)
    # Before the module is built: a missing file should be reported at once.
    weights = find_weights(spec, where)
    backbone = build_backbone(config, name=name, mean=mean, std=std)
    if weights is not None:
        load_strictly(backbone.clip, read_state_dict(weights, where), str(weights), where)
    tokenizer = Tokenizer(merges_file(spec))
    vocabulary = backbone.clip.vocab_size
    if tokenizer.vocab_size != vocabulary:
        raise UserError(
            f"{where}: the tokenizer has {tokenizer.vocab_size} tokens, the model {vocabulary}; "
            f"set {name}.tokenizer to the merges file that the weights were trained with"
        )
    return replace(backbone, tokenizer=tokenizer)


def build_backbone(
    config: Mapping[str, Any],
    *,
    name: str = "random",
    mean: Sequence[float] = OPENAI_DATASET_MEAN,
    std: Sequence[float] = OPENAI_DATASET_STD,
    seed: int = 0,
    device: str = "cpu",
) -> Backbone:
    """A CLIP with random weights from open_clip's own classes, in evaluation mode.

    Args:
        config: open_clip's `model_cfg`: embed_dim, quick_gelu, vision_cfg, text_cfg.
        name: shown in messages.
        mean: of the pixels, per channel.
        std: of the pixels, per channel.
        seed: of the weights; the global random state is left alone.
        device: `meta` builds the shapes only.
    """
    known = {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg"}
    if unknown := set(config) - known:
        raise UserError(f"{name}: a plain CLIP has {sorted(known)}, not {sorted(unknown)}")
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(seed)
        clip = open_clip.CLIP(**config).eval()
    _check_plain(clip, name)
    return Backbone(
        name=name,
        clip=clip,
        dims=_dims(clip),
        image_size=clip.visual.image_size[0],
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
    )


def meta_backbone(architecture: str) -> Backbone:
    """A backbone at real size without memory for its weights, to count parameters."""
    config, mean, std = read_architecture(architecture, architecture)
    return build_backbone(config, name=architecture, mean=mean, std=std, device="meta")


def read_architecture(
    architecture: str, where: str
) -> tuple[dict[str, Any], Sequence[float], Sequence[float]]:
    """open_clip's model_cfg, mean and std of the pixels."""
    mean: Sequence[float] = OPENAI_DATASET_MEAN
    std: Sequence[float] = OPENAI_DATASET_STD
    if not architecture.startswith(LOCAL_PREFIX):
        config = open_clip.get_model_config(architecture)
        if config is None:
            known = open_clip.list_models()
            near = difflib.get_close_matches(architecture, known, 5, 0.3)
            raise UserError(
                f"{where}.architecture: open_clip knows no {architecture!r}; "
                f"close to it: {', '.join(near) or 'nothing'}; or give {LOCAL_PREFIX}FOLDER"
            )
        return config, mean, std
    path = Path(architecture.removeprefix(LOCAL_PREFIX)) / CONFIG_NAME
    if not path.is_file():
        raise UserError(f"{where}.architecture: {path} not found; open_clip writes such a folder")
    content = read_json(path)
    if not isinstance(content, dict) or "model_cfg" not in content:
        raise UserError(f"{path}: no key 'model_cfg'; see open_clip's local-dir format")
    pixels = content.get("preprocess_cfg", {})
    return content["model_cfg"], pixels.get("mean", mean), pixels.get("std", std)


def merges_file(spec: Mapping[str, Any]) -> Path | None:
    """The tokenizer's merges of a backbone's entry; None for CLIP's own."""
    if given := spec.get("tokenizer"):
        if not Path(given).is_file():
            raise UserError(
                f"config/backbones.yaml: {spec['name']}.tokenizer: {given}: no such file"
            )
        return Path(given)
    if spec["architecture"].startswith(LOCAL_PREFIX):
        path = Path(spec["architecture"].removeprefix(LOCAL_PREFIX)) / BPE_NAME
        return path if path.is_file() else None
    return None


def _check_plain(clip: Any, name: str) -> None:
    """Refuse what `encoder` does not walk: other poolings, scaled layers, other blocks."""
    visual = clip.visual
    plain = (
        isinstance(visual, VisionTransformer)
        and visual.attn_pool is None
        and visual.pool_type == "tok"
        and not visual.final_ln_after_pool
        and isinstance(visual.patch_dropout, nn.Identity)
        and clip.text_pool_type == "argmax"
        and isinstance(clip.text_projection, nn.Parameter)
        and clip.attn_mask is not None
        and clip.logit_bias is None
    )
    blocks = [*visual.transformer.resblocks, *clip.transformer.resblocks] if plain else []
    if not plain or not all(
        type(block) is ResidualAttentionBlock and isinstance(block.ls_1, nn.Identity)
        for block in blocks
    ):
        raise UserError(
            f"{name}: only CLIP's plain layout is supported: a ViT with class token and a causal "
            "text transformer, as ViT-B-32-quickgelu or ViT-B-16-quickgelu"
        )


def _dims(clip: Any) -> Dims:
    visual, text = clip.visual.transformer, clip.transformer
    patches = len(clip.visual.positional_embedding)
    return Dims(
        vision=TowerDims(visual.width, visual.layers, visual.resblocks[0].attn.num_heads, patches),
        text=TowerDims(
            text.width, text.layers, text.resblocks[0].attn.num_heads, clip.context_length
        ),
        embed=clip.visual.output_dim,
        patch_size=clip.visual.patch_size[0],
    )
