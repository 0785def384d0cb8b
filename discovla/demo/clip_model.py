"""The tiny CLIP: open_clip's own classes in 0.7 M parameters, and its folder on disk.

The folder is what `open_clip.create_model("local-dir:…")` reads: `open_clip_config.json` and
`open_clip_model.safetensors` (float16), plus `bpe.txt.gz` for
`open_clip.tokenizer.SimpleTokenizer(bpe_path=…, context_length=40)`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file

from discovla.demo.scene import SIZE
from discovla.storage.files import atomic_path, write_json

CONTEXT_LENGTH = 40
"""Tokens of a caption with both marks: room for the 32 that retrieval uses."""
CONFIG_NAME = "open_clip_config.json"
WEIGHTS_NAME = "open_clip_model.safetensors"
BPE_NAME = "bpe.txt.gz"
EMBED_DIM = 64
VISION = {"layers": 4, "width": 96, "head_width": 32, "patch_size": 16, "image_size": SIZE}
TEXT = {"context_length": CONTEXT_LENGTH, "width": 64, "heads": 2, "layers": 3}


def build_clip(vocab_size: int) -> open_clip.CLIP:
    """A freshly initialised tiny CLIP.

    open_clip draws visual positions about ten times smaller than the embedded pixels, and ln_pre
    then hides them: without the factor 6 the model knows no place after 900 steps.
    """
    model = open_clip.CLIP(
        embed_dim=EMBED_DIM,
        vision_cfg=open_clip.CLIPVisionCfg(**VISION),
        text_cfg=open_clip.CLIPTextCfg(vocab_size=vocab_size, **TEXT),
        quick_gelu=True,
    )
    with torch.no_grad():
        model.visual.positional_embedding.mul_(6)
    return model


def save_clip(model: open_clip.CLIP, folder: Path) -> None:
    """Write configuration and float16 weights; the BPE file is written where it is learnt."""
    vocab_size = model.token_embedding.num_embeddings
    config: dict[str, Any] = {
        "model_cfg": {
            "embed_dim": EMBED_DIM,
            "quick_gelu": True,
            "vision_cfg": VISION,
            "text_cfg": {"vocab_size": vocab_size, **TEXT},
        },
        "preprocess_cfg": {
            "mean": list(OPENAI_DATASET_MEAN),
            "std": list(OPENAI_DATASET_STD),
        },
    }
    write_json(folder / CONFIG_NAME, config)
    state = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    with atomic_path(folder / WEIGHTS_NAME) as temporary:
        save_file(state, str(temporary), metadata={"format": "pt"})


def load_clip(folder: Path) -> tuple[open_clip.CLIP, SimpleTokenizer]:
    """The model in float32, in evaluation mode, and its tokenizer."""
    model = open_clip.create_model(
        f"local-dir:{folder.resolve()}", precision="fp32", require_pretrained=True
    )
    return model.eval(), load_tokenizer(folder)


def load_tokenizer(folder: Path) -> SimpleTokenizer:
    """The tokenizer of a tiny CLIP folder."""
    return SimpleTokenizer(bpe_path=str(folder / BPE_NAME), context_length=CONTEXT_LENGTH)


def to_pixels(images: np.ndarray) -> torch.Tensor:
    """uint8 (N, H, W, 3) to normalised float32 (N, 3, H, W), with CLIP's mean and deviation."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255)
    mean = torch.tensor(OPENAI_DATASET_MEAN).view(1, 3, 1, 1)
    std = torch.tensor(OPENAI_DATASET_STD).view(1, 3, 1, 1)
    return pixels.sub_(mean).div_(std)


def image_tower(model: open_clip.CLIP, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """CLS after ln_post (N, 96), and the image embedding (N, 64) before normalisation."""
    visual = model.visual
    cls = visual.ln_post(visual.transformer(visual._embeds(pixels))[:, 0])
    return cls, cls @ visual.proj


def text_tower(
    model: open_clip.CLIP, tokenizer: SimpleTokenizer, texts: Sequence[str]
) -> torch.Tensor:
    """Text embeddings (N, 64) before normalisation.

    `CLIP.encode_text` computes all 40 positions; cutting to the longest text halves the time.
    """
    tokens = tokenizer(list(texts))
    length = int((tokens != 0).sum(1).max())
    tokens = tokens[:, :length]
    hidden = model.token_embedding(tokens) + model.positional_embedding[:length]
    hidden = model.transformer(hidden, attn_mask=model.attn_mask[:length, :length])
    last = tokens.argmax(-1)  # the end mark has the largest id
    hidden = model.ln_final(hidden[torch.arange(len(tokens)), last])
    return hidden @ model.text_projection


def cosine_schedule(step: int, steps: int, warmup: int, floor: float = 0.0) -> float:
    """Factor of the learning rate: linear warm-up, then a cosine down to `floor`."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
