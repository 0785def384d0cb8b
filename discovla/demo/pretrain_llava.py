"""Pretraining of the tiny LLaVA-NeXT in three phases (11 to 19 CPU minutes on one thread).

A. Text-only copying: from the guided prompt without image to the object names in it. Without it
   the language model never learns to take a word from the prompt, and guidance has no effect.
B. The vision tower, started from the tiny CLIP, on video-like frames with an attribute head.
C. Frames with either prompt to the full description of the frame.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm
from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor

from discovla.captioning.prompt import guided_prompt, unguided_prompt
from discovla.demo.captions import caption_and_names, frame_description, video_caption
from discovla.demo.clip_model import VISION, cosine_schedule, load_clip, to_pixels
from discovla.demo.llava_model import (
    EOS,
    IMAGE,
    PAD,
    build_llava,
    build_processor,
    caption_images,
    chat_prompt,
    copy_tower,
    image_embeddings,
    patch_features,
)
from discovla.demo.quality import caption_scores
from discovla.demo.render import render_frame
from discovla.demo.scene import N_FRAMES, Story, draw_story
from discovla.demo.targets import N_TARGETS, attribute_targets

WARMUP = 50
WEIGHT_DECAY = 0.02
GUIDED_SHARE = 0.7
N_FRESH = 256
_PLACE = "PLACE OF THE TEXT"


@dataclass(frozen=True)
class Phase:
    """Steps, samples per step and learning rate of one phase."""

    name: str
    steps: int
    batch: int
    rate: float


COPYING = Phase("copying", 700, 64, 2e-3)
TOWER = Phase("tower", 600, 48, 8e-4)
MULTIMODAL = Phase("multimodal", 1300, 32, 1.2e-3)


@dataclass
class _Batch:
    """Token ids (N, L) padded at the end, and which of them are to be predicted."""

    ids: torch.Tensor
    answer: torch.Tensor


class _Encoder:
    """Prompts and answers to token ids, in the conversation format of the processor.

    The template is expanded once; texts then replace a marker in it.
    """

    def __init__(self, processor: LlavaNextProcessor) -> None:
        self.tokenizer = processor.tokenizer
        self.template = {
            image: chat_prompt(processor, _PLACE, image=image) for image in (False, True)
        }
        self.n_image_tokens = processor._get_number_of_features(64, 64, 64, 64) - 1

    def __call__(self, prompts: list[str], answers: list[str], *, image: bool) -> _Batch:
        template = self.template[image].replace("<image>", "<image>" * self.n_image_tokens)
        asked = self.tokenizer([template.replace(_PLACE, prompt) for prompt in prompts])
        told = self.tokenizer(answers)
        rows = zip(asked["input_ids"], told["input_ids"], strict=True)
        sequences = [(question, [*answer, EOS]) for question, answer in rows]
        length = max(len(question) + len(answer) for question, answer in sequences)
        ids = torch.full((len(sequences), length), PAD)
        is_answer = torch.zeros(ids.shape, dtype=torch.bool)
        for row, (question, answer) in enumerate(sequences):
            ids[row, : len(question) + len(answer)] = torch.tensor(question + answer)
            is_answer[row, len(question) : len(question) + len(answer)] = True
        return _Batch(ids, is_answer)


def _answer_loss(
    model: LlavaNextForConditionalGeneration, batch: _Batch, pixels: torch.Tensor | None
) -> torch.Tensor:
    """Cross-entropy of the answer's tokens.

    The padding is at the end, so causal attention keeps it from the answer without any mask.
    """
    embeddings = model.get_input_embeddings()(batch.ids)
    if pixels is not None:
        features = image_embeddings(model, pixels).flatten(0, 1)
        where = (batch.ids == IMAGE)[..., None].expand_as(embeddings)
        embeddings = embeddings.masked_scatter(where, features)
    hidden = model.model.language_model(inputs_embeds=embeddings, use_cache=False)
    before = hidden.last_hidden_state[:, :-1][batch.answer[:, 1:]]
    return F.cross_entropy(model.lm_head(before), batch.ids[batch.answer])


def _copying_batch(rng: np.random.Generator, encoder: _Encoder, size: int) -> _Batch:
    prompts, answers = [], []
    for _ in range(size):
        caption, names = caption_and_names(draw_story(rng), rng)
        if rng.random() < 0.5:
            names = [names[i] for i in rng.permutation(len(names))]
        prompts.append(guided_prompt(caption))
        answers.append(" and ".join(names))
    return encoder(prompts, answers, image=False)


def _choose_frame(rng: np.random.Generator, story: Story, cameo_share: float) -> int:
    """A frame: inside a cameo with probability `cameo_share`, else any."""
    if rng.random() >= cameo_share:
        return int(rng.integers(N_FRAMES))
    cameo = story.cameos[rng.integers(len(story.cameos))]
    return int(rng.integers(cameo.start, cameo.stop))


def _tower_batch(rng: np.random.Generator, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One frame of each of `size` videos, and a second one, inside a cameo, of half of them."""
    images, targets = [], []
    for _ in range(size):
        story = draw_story(rng)
        for cameo_share in (0.0, 1.0)[: 1 + int(rng.random() < 0.5)]:
            frame = _choose_frame(rng, story, cameo_share)
            images.append(render_frame(story, frame, rng))
            targets.append(attribute_targets(story.at(frame)))
    return to_pixels(np.stack(images)), torch.from_numpy(np.stack(targets))


def draw_frames(rng: np.random.Generator, size: int) -> tuple[np.ndarray, list[str], list[str]]:
    """Frames of fresh videos, uint8 (N, 64, 64, 3), a caption of each video, and the truth."""
    images, captions, truth = [], [], []
    for _ in range(size):
        story = draw_story(rng)
        frame = _choose_frame(rng, story, 0.5)
        images.append(render_frame(story, frame, rng))
        captions.append(video_caption(story, rng))
        truth.append(frame_description(story.at(frame)))
    return np.stack(images), captions, truth


def _multimodal_batch(
    rng: np.random.Generator, encoder: _Encoder, size: int
) -> tuple[_Batch, torch.Tensor]:
    images, captions, truth = draw_frames(rng, size)
    guided = rng.random(size) < GUIDED_SHARE
    prompts = [
        guided_prompt(caption) if told else unguided_prompt()
        for caption, told in zip(captions, guided, strict=True)
    ]
    return encoder(prompts, truth, image=True), to_pixels(images)


def _train(
    phase: Phase,
    scale: float,
    groups: list[dict[str, Any]],
    loss: Callable[[], torch.Tensor],
) -> Iterator[dict[str, float]]:
    """Run one phase; yield a point of the loss curve now and then."""
    optimiser = torch.optim.AdamW(
        groups, lr=phase.rate, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY
    )
    steps = max(2, round(phase.steps * scale))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: cosine_schedule(step, steps, WARMUP)
    )
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for step in tqdm(range(steps), phase.name, file=sys.stderr):
        value = loss()
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            yield {"step": step, "loss": round(value.item(), 4)}


def measure_captions(
    model: LlavaNextForConditionalGeneration,
    processor: LlavaNextProcessor,
    images: np.ndarray,
    captions: list[str],
    truth: list[str],
) -> dict[str, dict[str, float]]:
    """Scores of the captioner on uint8 (N, 64, 64, 3) frames, with and without video caption."""
    plain = chat_prompt(processor, unguided_prompt())
    prompts = {
        "guided": [chat_prompt(processor, guided_prompt(caption)) for caption in captions],
        "unguided": [plain] * len(captions),
    }
    return {
        kind: caption_scores(caption_images(model, processor, list(images), asked), truth)
        for kind, asked in prompts.items()
    }


def pretrain_llava(
    folder: Path, clip_folder: Path, *, seed: int = 0, scale: float = 1.0
) -> dict[str, Any]:
    """Train the tiny captioner and write model (float16) and processor.

    Args:
        folder: where they go, in the layout of `save_pretrained`.
        clip_folder: the tiny CLIP whose visual weights start the vision tower.
        seed: of the initial weights and of all data, which is made on the fly.
        scale: factor on the steps; below 1 only for tests of the code path.

    Returns:
        The training log: loss curves, caption scores on 256 fresh frames, CPU seconds.
    """
    torch.set_num_threads(1)  # as in pretrain_clip
    torch.manual_seed(seed)
    started = time.process_time()
    rng = np.random.default_rng([seed, 4])
    processor = build_processor()
    encoder = _Encoder(processor)
    model = build_llava(len(processor.tokenizer))
    language = [*model.model.language_model.parameters()]
    curves = {}

    def copying() -> torch.Tensor:
        return _answer_loss(model, _copying_batch(rng, encoder, COPYING.batch), None)

    curves[COPYING.name] = list(_train(COPYING, scale, [{"params": language}], copying))

    copy_tower(load_clip(clip_folder)[0], model)
    tower = [*model.model.vision_tower.parameters()]
    head = nn.Linear(VISION["width"], N_TARGETS)

    def seeing() -> torch.Tensor:
        pixels, targets = _tower_batch(rng, TOWER.batch)
        logits = head(patch_features(model, pixels)).amax(1)
        return F.binary_cross_entropy_with_logits(logits, targets)

    groups: list[dict[str, Any]] = [{"params": [*tower, *head.parameters()]}]
    curves[TOWER.name] = list(_train(TOWER, scale, groups, seeing))

    def answering() -> torch.Tensor:
        batch, pixels = _multimodal_batch(rng, encoder, MULTIMODAL.batch)
        return _answer_loss(model, batch, pixels)

    in_tower = {id(p) for p in tower}
    groups = [
        {"params": [p for p in model.parameters() if id(p) not in in_tower]},
        {"params": tower, "lr": MULTIMODAL.rate / 2},
    ]
    curves[MULTIMODAL.name] = list(_train(MULTIMODAL, scale, groups, answering))

    model.half().save_pretrained(folder)
    processor.save_pretrained(folder)
    fresh = draw_frames(np.random.default_rng(902), max(2, round(N_FRESH * min(1, scale))))
    return {
        "seed": seed,
        "parameters": sum(p.numel() for p in model.parameters()),
        "fresh_frames": measure_captions(model.float().eval(), processor, *fresh),
        "cpu_seconds": round(time.process_time() - started, 1),
        "curves": curves,
    }
