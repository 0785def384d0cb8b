"""Pretraining of the tiny CLIP on rendered stills (9 to 15 CPU minutes on one thread).

Two measures make it see shape, texture and size, not colour alone: every other batch is a *hard
block* whose images share two colours, and a linear head on the CLS token predicts pairs of
attributes (the head is thrown away).
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from discovla.demo import bpe
from discovla.demo.captions import image_caption, video_caption
from discovla.demo.clip_model import (
    BPE_NAME,
    build_clip,
    cosine_schedule,
    image_tower,
    load_tokenizer,
    save_clip,
    text_tower,
    to_pixels,
)
from discovla.demo.quality import retrieval_recall, zero_shot_accuracy
from discovla.demo.render import render_image
from discovla.demo.scene import Placed, draw_colours, draw_still, draw_story
from discovla.demo.targets import N_TARGETS, attribute_targets

BLOCK = 128
STEPS = 2400
WARMUP = 100
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.1
HEAD_WEIGHT = 5.0
IMAGE_SEED = 1


@dataclass
class Stills:
    """Rendered pretraining images: uint8 (N, 64, 64, 3), what they show, and the targets."""

    images: np.ndarray
    placed: list[list[Placed]]
    targets: torch.Tensor


def render_stills(n_blocks: int, seed: int = IMAGE_SEED) -> Stills:
    """`n_blocks` x 128 clean images; every odd block draws from two colours only."""
    rng = np.random.default_rng(seed)
    images, scenes = [], []
    for block in range(n_blocks):
        first, second = draw_colours(rng, 2)
        for _ in range(BLOCK):
            placed, backdrop = draw_still(rng, (first, second) if block % 2 else None)
            images.append(render_image(placed, backdrop, rng))
            scenes.append(placed)
    targets = torch.from_numpy(np.stack([attribute_targets(placed) for placed in scenes]))
    return Stills(np.stack(images), scenes, targets)


def learn_vocabulary(folder: Path, seed: int) -> SimpleTokenizer:
    """Learn the BPE file from 4,000 image and 4,000 video captions; return its tokenizer."""
    rng = np.random.default_rng([seed, 2])
    texts = [image_caption(draw_still(rng)[0], rng) for _ in range(4000)]
    texts += [video_caption(draw_story(rng), rng) for _ in range(4000)]
    bpe.write_merges(folder / BPE_NAME, bpe.learn_merges(texts))
    return load_tokenizer(folder)


def _batches(n_blocks: int, steps: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Indices of 128 images: by turns any images, and one hard block."""
    for step in range(steps):
        if step % 2 == 0:
            yield rng.choice(n_blocks * BLOCK, size=BLOCK, replace=False)
        else:
            block = 2 * int(rng.integers(n_blocks // 2)) + 1
            yield np.arange(block * BLOCK, (block + 1) * BLOCK)


def _optimiser(modules: list[nn.Module]) -> torch.optim.AdamW:
    parameters = [p for module in modules for p in module.parameters()]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.98))


def pretrain_clip(folder: Path, *, seed: int = 0, scale: float = 1.0) -> dict[str, Any]:
    """Train the tiny CLIP and write its folder.

    Args:
        folder: where configuration, weights and BPE file go; made if absent.
        seed: of the initial weights and of the order of images and captions.
        scale: factor on steps and images; below 1 only for tests of the code path.

    Returns:
        The training log: loss curve, accuracies before rounding to float16, CPU seconds.
    """
    torch.set_num_threads(1)  # small matrices: more threads only wait for each other
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    started = time.process_time()
    steps = max(2, round(STEPS * scale))
    stills = render_stills(max(2, 2 * round(150 * scale)))
    tokenizer = learn_vocabulary(folder, seed)
    model = build_clip(tokenizer.vocab_size)
    head = nn.Linear(model.visual.ln_post.normalized_shape[0], N_TARGETS)
    optimiser = _optimiser([model, head])
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: cosine_schedule(step, steps, WARMUP, floor=0.02)
    )
    rng = np.random.default_rng([seed, 3])
    curve = []
    batches = _batches(len(stills.images) // BLOCK, steps, rng)
    for step, chosen in enumerate(tqdm(batches, "CLIP", steps, file=sys.stderr)):
        texts = [image_caption(stills.placed[i], rng) for i in chosen]
        contrast, bce = _losses(model, head, tokenizer, stills, chosen, texts)
        optimiser.zero_grad(set_to_none=True)
        (contrast + HEAD_WEIGHT * bce).backward()
        nn.utils.clip_grad_norm_([*model.parameters(), *head.parameters()], 1.0)
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100))
        if step % 100 in (0, 1) or step >= steps - 2:
            kind = "hard" if step % 2 else "random"
            losses = {"contrast": round(contrast.item(), 4), "head": round(bce.item(), 4)}
            curve.append({"step": step, "batch": kind, **losses})
        if step % 300 == 299:
            tqdm.write(f"step {step + 1}: {zero_shot_accuracy(model, tokenizer)}", sys.stderr)
    save_clip(model, folder)
    return {
        "seed": seed,
        "steps": steps,
        "images": len(stills.images),
        "parameters": sum(p.numel() for p in model.parameters()),
        "logit_scale": round(model.logit_scale.exp().item(), 2),
        "zero_shot_float32": zero_shot_accuracy(model, tokenizer),
        "image_to_text_float32": retrieval_recall(model, tokenizer),
        "cpu_seconds": round(time.process_time() - started, 1),
        "curve": curve,
    }


def _losses(
    model: open_clip.CLIP,
    head: nn.Linear,
    tokenizer: SimpleTokenizer,
    stills: Stills,
    chosen: np.ndarray,
    texts: list[str],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Symmetric InfoNCE, and binary cross-entropy of the attribute head."""
    cls, images = image_tower(model, to_pixels(stills.images[chosen]))
    sentences = F.normalize(text_tower(model, tokenizer, texts), dim=-1)
    logits = model.logit_scale.exp() * F.normalize(images, dim=-1) @ sentences.T
    labels = torch.arange(len(chosen))
    contrast = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    targets = stills.targets[torch.from_numpy(chosen)]
    return contrast, F.binary_cross_entropy_with_logits(head(cls), targets)
