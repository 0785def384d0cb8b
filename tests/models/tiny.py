"""A tiny random CLIP, run settings and batches for tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from discovla.methods.options import read_settings
from discovla.models.backbone import Backbone, build_backbone
from discovla.models.retriever import Retriever, build_retriever
from discovla.settings import RunSettings

VOCAB, CONTEXT, SIDE = 60, 16, 16

CONFIG: dict[str, Any] = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {
        "layers": 3,
        "width": 32,
        "head_width": 16,
        "patch_size": 8,
        "image_size": SIDE,
    },
    "text_cfg": {
        "context_length": CONTEXT,
        "vocab_size": VOCAB,
        "width": 48,
        "heads": 3,
        "layers": 4,
    },
}


def settings(method: str = "discovla", **changes: Any) -> RunSettings:
    """Settings of a small run; the losses' constants are the paper's."""
    values = {
        "method": method,
        "backbone": "tiny",
        "lora_rank": 3,
        "adapter_rank": 2,
        "vision_layers": 2,
        "text_layers": 2,
        "alpha": 0.3 if method == "discovla" else 0,
        "beta": 1.0 if method == "discovla" else 0,
        "epochs": 1,
        "batch_size": 4,
        "lr": 6e-4,
        "weight_decay": 0.2,
        "beta1": 0.9,
        "beta2": 0.999,
        "adam_eps": 1e-6,
        "warmup": 0.1,
        "clip_norm": 1.0,
        "frames": 3,
        "words": 10,
        "sampling_fps": 1.0,
        "captioner": "none",
    }
    return read_settings({**values, **changes}, "test")


def backbone(seed: int = 0) -> Backbone:
    """A random CLIP; biases and positions are random too, so that no term hides."""
    built = build_backbone(CONFIG, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in built.clip.parameters():
            if parameter.dim() == 1 or parameter.shape[:1] == (CONTEXT,):
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return built


def shake(model: torch.nn.Module, seed: int = 7) -> None:
    """Give every trained tensor random values, so that zero-initialised parts count."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)


def model(method: str = "discovla", shaken: bool = True, **changes: Any) -> Retriever:
    """A model over the tiny CLIP."""
    built = build_retriever(settings(method, **changes), backbone())
    if shaken:
        shake(built.method)
    return built


def captions(count: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Ids and mask (count, length) of captions with 0 to length - 2 words."""
    ids = torch.zeros(count, length, dtype=torch.long)
    mask = torch.zeros(count, length, dtype=torch.bool)
    for row in range(count):
        words = int(torch.randint(0, length - 1, (), generator=generator))
        body = torch.randint(0, VOCAB - 2, (words,), generator=generator)
        ids[row, : words + 2] = torch.cat(
            [torch.tensor([VOCAB - 2]), body, torch.tensor([VOCAB - 1])]
        )
        mask[row, : words + 2] = True
    return ids, mask


def batch(samples: int = 4, frames: int = 3, length: int = 10, seed: int = 3) -> dict[str, Tensor]:
    """A training batch with pseudo captions; samples 0 and 1 are of one video."""
    generator = torch.Generator().manual_seed(seed)
    text_ids, text_mask = captions(samples, length, generator)
    frame_ids, frame_mask = captions(samples * frames, length, generator)
    return {
        "text_ids": text_ids,
        "text_mask": text_mask,
        "frame_text_ids": frame_ids.reshape(samples, frames, length),
        "frame_text_mask": frame_mask.reshape(samples, frames, length),
        "video": torch.randn(samples, frames, 3, SIDE, SIDE, generator=generator),
        "video_mask": torch.ones(samples, frames, dtype=torch.bool),
        "video_index": torch.tensor([0, 0, *range(1, samples - 1)]),
    }
