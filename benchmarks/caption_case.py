"""A LLaVA-NeXT with random weights, and rows to answer with it, the project's way and plainly.

Needs torch and transformers only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers import (
    CLIPVisionConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    MistralConfig,
)
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

from discovla.captioning.llava.decoding import Chooser
from discovla.captioning.llava.frames import Frame, Question, frame_of
from discovla.captioning.llava.generation import Generator
from discovla.captioning.llava.images import Images, set_grid

GRIDS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
IMAGE = 4
#: Template head and the fixed words before the caption; each caption; what follows it.
HEAD, CAPTION, FOOT = 24, (8, 25), 20
SIZES: dict[str, dict[str, Any]] = {
    "test": {
        "text": {
            "vocab_size": 300,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
        },
        "vision": {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
        },
        "deviation": 0.3,
    },
    "tiny": {
        "text": {
            "vocab_size": 2000,
            "hidden_size": 512,
            "intermediate_size": 1408,
            "num_hidden_layers": 4,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
        },
        "vision": {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
        },
        "deviation": 0.12,
    },
    "7b": {
        "text": {
            "vocab_size": 32064,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
        },
        "vision": {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "projection_dim": 768,
        },
        "deviation": 0.02,
    },
}


class Processor:
    """The part of a LLaVA-NeXT processor that cuts images into tiles."""

    def __init__(self) -> None:
        self.image_processor = LlavaNextImageProcessor(
            size={"shortest_edge": 336},
            crop_size={"height": 336, "width": 336},
            image_grid_pinpoints=GRIDS,
        )


def model_of(size: str, device: str, dtype: torch.dtype, seed: int = 0) -> Any:
    """A LLaVA-NeXT with random weights, made on `device`."""
    sizes = SIZES[size]
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(image_size=336, patch_size=14, **sizes["vision"]),
        text_config=MistralConfig(
            max_position_embeddings=32768,
            sliding_window=None,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
            initializer_range=sizes["deviation"],
            tie_word_embeddings=False,
            **sizes["text"],
        ),
        image_token_index=IMAGE,
        image_grid_pinpoints=GRIDS,
        vision_feature_layer=-2,
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = LlavaNextForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    with torch.no_grad():
        # An image must matter to the answers as words do.
        model.model.multi_modal_projector.linear_2.weight.normal_(std=1 / 8)
    model.generation_config.eos_token_id = None
    return model.eval()


def questions_of(
    frames: int, captions: int, vocabulary: int, seed: int = 0
) -> list[list[list[int]]]:
    """Token rows, (frames, captions, tokens), an image token in each; captions of 8 to 24 words."""
    rng = np.random.default_rng(seed)

    def words(count: int) -> list[int]:
        return [int(token) for token in rng.integers(5, vocabulary, count)]

    head, foot = words(HEAD), words(FOOT)
    texts = [[words(int(rng.integers(*CAPTION))) for _ in range(captions)] for _ in range(frames)]
    return [[[1, IMAGE, *head, *text, *foot] for text in frame] for frame in texts]


@dataclass
class Case:
    """A model, images and rows to answer."""

    model: Any
    processor: Processor
    generator: Generator
    images: list[np.ndarray[Any, np.dtype[np.uint8]]]
    rows: list[list[list[int]]]
    answer: int
    tokens: int
    """Read together."""

    def about(self, frames: int, captions: int, height: int, width: int) -> Case:
        """The same model, asked about other images."""
        rng = np.random.default_rng(0)
        shape = (height, width, 3)
        images = [rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(frames)]
        vocabulary = self.model.config.text_config.vocab_size
        rows = questions_of(frames, captions, vocabulary)
        return replace(self, images=images, rows=rows)

    def shared(self) -> list[list[int]]:
        """Answers of the project's generator."""
        with torch.inference_mode(), Images(self.model, self.processor) as encoder:
            frames = self.frames()

            def encode(part: Sequence[Frame]) -> list[torch.Tensor]:
                return encoder.encode([frame.image for frame in part])

            def chooser(questions: Sequence[Question]) -> Chooser:
                return Chooser(
                    [],
                    second_try=False,
                    sampling=None,
                    keys=[],
                    steps=self.answer,
                    device=self.model.device,
                )

            encoder.prepare(self.images)
            found = self.generator.answer(
                frames, encode, chooser, longest=self.answer, rows=10**6, tokens=self.tokens
            )
            said = {question.number: answer for question, answer in found}
        return [said[number] for number in sorted(said)]

    def frames(self) -> list[Frame]:
        """What is asked, question numbers being those of the rows one behind the other."""
        count = len(self.rows[0])
        found: list[Frame] = []
        with Images(self.model, self.processor) as encoder:
            for f, (image, rows) in enumerate(zip(self.images, self.rows, strict=True)):
                asked = [Question(f * count + n, tuple(row)) for n, row in enumerate(rows)]
                found.append(frame_of(image, encoder.tokens(image), asked, IMAGE))
        return found

    def tiles(self, image: np.ndarray[Any, np.dtype[np.uint8]]) -> int:
        """Tiles that an image is cut into, the small whole image among them."""
        config = self.model.config
        size = image.shape[:2]
        return image_size_to_num_patches(
            size, config.image_grid_pinpoints, config.vision_config.image_size
        )

    def naive(self, batch: int, most: int | None = None) -> list[list[int]]:
        """Answers of transformers' `generate`, images encoded once, rows padded on the left."""
        with torch.inference_mode(), Images(self.model, self.processor) as encoder:
            features = encoder.encode(self.images)
            flat = [(row, f) for f, rows in enumerate(self.rows) for row in rows][:most]
            return [
                answer
                for start in range(0, len(flat), batch)
                for answer in self._generate(flat[start : start + batch], features)
            ]

    def _generate(
        self, batch: list[tuple[list[int], int]], features: list[torch.Tensor]
    ) -> list[list[int]]:
        rows = []
        for row, f in batch:
            place = row.index(IMAGE)
            rows.append(row[:place] + [IMAGE] * len(features[f]) + row[place + 1 :])
        longest = max(map(len, rows))
        ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
        ids = ids.to(self.model.device)
        embeddings = self.model.get_input_embeddings()(ids)
        embeddings[ids == IMAGE] = torch.cat([features[f] for _, f in batch]).to(embeddings.dtype)
        output = self.model.generate(
            inputs_embeds=embeddings,
            attention_mask=(ids != 0).long(),
            max_new_tokens=self.answer,
            min_new_tokens=self.answer,
            do_sample=False,
            pad_token_id=0,
        )
        answers: list[list[int]] = output.tolist()
        return answers


def case_of(
    size: str,
    device: str,
    dtype: torch.dtype,
    *,
    frames: int,
    captions: int,
    answer: int,
    height: int = 240,
    width: int = 320,
    grid: str = "processor",
) -> Case:
    """Random images of one shape, and `captions` rows about each."""
    model, processor = model_of(size, device, dtype), Processor()
    set_grid(model, processor, grid)
    tokens = 16384 if device.startswith("cuda") else 4096
    generator = Generator(model, [])
    case = Case(model, processor, generator, [], [], answer, tokens)
    return case.about(frames, captions, height, width)
