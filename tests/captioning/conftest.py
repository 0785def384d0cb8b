"""A tiny LLaVA-NeXT of transformers' own classes, frame shards, annotations, a fake captioner."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from discovla.captioning import http
from discovla.captioning.engine import LONGER, Caption
from discovla.data.annotations.base import Clip, to_table, write_annotations
from discovla.data.frame_file import record_batch, shard_file
from discovla.data.shards import shard_of
from tests.captioning.chat_server import ChatServer

FRAMES_ID = "f" * 10
CAPTIONS_ID = "0123456789"
SIZE, PATCH = 32, 16
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<image>")
KNOWN = (
    "user assistant the provided image is a frame sampled from video which describes based on s "
    "content provide caption for red green blue ring cross disc moves jumps and then large small "
    ". , : ' { }"
)
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] | upper }}:"
    "{% for p in m['content'] %} "
    "{% if p['type'] == 'image' %}<image>{% else %}{{ p['text'] }}{% endif %}{% endfor %}"
    " {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


@pytest.fixture(scope="session")
def llava_folder(tmp_path_factory) -> Path:
    """A random LLaVA-NeXT saved with save_pretrained; frames of several shapes differ in tokens."""
    import torch
    from tokenizers import Tokenizer, normalizers, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextImageProcessor,
        LlavaNextProcessor,
        PreTrainedTokenizerFast,
    )

    vocab = {word: i for i, word in enumerate(dict.fromkeys([*SPECIAL, *KNOWN.split()]))}
    backend = Tokenizer(WordLevel(vocab, unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<image>"],
        padding_side="left",
    )
    grids = [[SIZE, SIZE], [SIZE, 2 * SIZE], [2 * SIZE, SIZE]]
    processor = LlavaNextProcessor(
        image_processor=LlavaNextImageProcessor(
            size={"shortest_edge": SIZE},
            crop_size={"height": SIZE, "width": SIZE},
            image_grid_pinpoints=grids,
        ),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=SIZE,
            patch_size=PATCH,
        ),
        text_config=LlamaConfig(
            vocab_size=len(vocab),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=256,
            tie_word_embeddings=False,
            pad_token_id=0,
            bos_token_id=2,
            eos_token_id=3,
            initializer_range=0.4,  # wide enough for answers to depend on image and prompt
        ),
        image_token_index=4,
        image_grid_pinpoints=grids,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
        image_seq_length=(SIZE // PATCH) ** 2,
    )
    torch.manual_seed(0)
    model = LlavaNextForConditionalGeneration(config)
    with torch.no_grad():
        model.model.multi_modal_projector.linear_2.weight.normal_(std=1.0)
    model.generation_config.pad_token_id = 0
    model.generation_config.eos_token_id = 3
    folder = tmp_path_factory.mktemp("llava")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def noise(seed: int, height: int, width: int) -> np.ndarray:
    """A random uint8 image."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


class FakeCaptioner:
    """Answers from a function of (mean of the image, prompt), and a record of every question."""

    def __init__(
        self,
        say: Callable[[np.ndarray, str, bool], str],
        stop_after: int = -1,
        longest: int | None = None,
    ) -> None:
        self.say, self.stop_after, self.longest = say, stop_after, longest
        self.asked: list[tuple[float, str, bool]] = []
        self.asked_longer: list[tuple[float, str]] = []

    def describe(self) -> dict[str, Any]:
        return {"engine": "fake", "model": "fake", "revision": None, "dtype": "fp32", "seed": None}

    def caption(
        self,
        images: Sequence[np.ndarray],
        prompts: Sequence[str],
        *,
        second_try: bool = False,
        longer: bool = False,
    ) -> list[Caption]:
        if self.stop_after == 0:
            raise KeyboardInterrupt
        self.stop_after -= 1
        means = [float(image.mean()) for image in images]
        self.asked += [(mean, p, second_try) for mean, p in zip(means, prompts, strict=True)]
        if longer:
            self.asked_longer += list(zip(means, prompts, strict=True))
        texts = [self.say(i, p, second_try) for i, p in zip(images, prompts, strict=True)]
        limit = self.longest and self.longest * (LONGER if longer else 1)
        return [_cut(text, limit) for text in texts]


def _cut(text: str, limit: int | None) -> Caption:
    words = text.split()
    if limit is None or len(words) <= limit:
        return Caption(text, len(words), "stop")
    return Caption(" ".join(words[:limit]), limit, "length")


def echo(image: np.ndarray, prompt: str, second_try: bool) -> str:
    """An answer that tells image and prompt apart."""
    return f"frame {image.mean():.4f} of {prompt}"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


class World:
    """Annotations and frame shards of made-up clips."""

    n_frames = 3

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.annotations = folder / "annotations.parquet"
        self.captions = {
            "plain": ["a red ring moves", "a red ring and a blue disc", "a red ring moves"],
            "-rf ../'x\"": ["a {caption} of </s> <image> and {0}", "a green cross jumps"],
            "short": ["a small disc"],
            "broken": ["nobody knows"],
        }
        #: Two equal frames: a clip shorter than F frames gives the same frame more than once.
        self.frame_index = {"short": [0, 0, 5]}
        pairs = [
            (Clip(clip_id, "train", (clip_id,)), caption)
            for clip_id, captions in self.captions.items()
            for caption in captions
        ]
        pairs.append((Clip("exam", "test", ("exam",)), "a secret test caption"))
        self.table = to_table(pairs)
        write_annotations(self.table, self.annotations, dataset="w", rules={}, sources={})

    def shard(self, number: int = 1, total: int = 1) -> Path:
        """One shard of frames, of every clip that belongs there."""
        path = self.folder / "frames" / f"{number}-of-{total}.arrow"
        clip_ids = [c for c in [*self.captions, "exam"] if shard_of(c, total) == number]
        metadata = {
            "frames_id": FRAMES_ID,
            "frames": self.n_frames,
            "shard": f"{number}-of-{total}",
            "clips": len(clip_ids),
            "clip_ids": clip_ids,
        }
        with shard_file(path, metadata) as writer:
            for clip_id in sorted(clip_ids, key="broken".__eq__):
                writer.write_batch(self._batch(clip_id))
        return path

    def images(self, clip_id: str) -> list[np.ndarray]:
        """The frames of a clip; their size differs from clip to clip."""
        height, width = {"plain": (24, 40), "short": (32, 32)}.get(clip_id, (48, 20))
        indices = self.frame_index.get(clip_id, range(self.n_frames))
        return [noise(len(clip_id) * 100 + i, height, width) for i in indices]

    def _batch(self, clip_id: str) -> pa.RecordBatch:
        images = self.images(clip_id)
        if clip_id == "broken":
            rows: list[dict[str, Any]] = [
                {"clip_id": clip_id, "position": 0, "error": "moov atom not found"}
            ]
        else:
            rows = [
                {
                    "clip_id": clip_id,
                    "position": position,
                    "frame_index": index,
                    "timestamp": index / 10,
                    "width": image.shape[1],
                    "height": image.shape[0],
                    "encoding": "raw",
                    "data": image.tobytes(),
                    "reader": "test",
                    "bad_packets": 0,
                }
                for position, (image, index) in enumerate(
                    zip(
                        images,
                        self.frame_index.get(clip_id, range(self.n_frames)),
                        strict=True,
                    )
                )
            ]
        return record_batch(rows)

    def training_captions(self) -> pd.DataFrame:
        """Training captions whose clip has frames."""
        table = self.table
        return table[(table["split"] == "train") & (table["clip_id"] != "broken")]


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests do not wait for a server to recover."""
    monkeypatch.setattr(http, "FIRST_PAUSE", 0.001)


@pytest.fixture
def server(short_pauses: None) -> Iterator[ChatServer]:
    with ChatServer(echo) as running:
        yield running
