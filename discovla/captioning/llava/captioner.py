"""A captioner: plain prompts in, answers out."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from discovla.captioning.engine import LONGER, Caption
from discovla.captioning.fingerprint import folder_fingerprint
from discovla.captioning.llava.decoding import Chooser, Sampling
from discovla.captioning.llava.frames import (
    Frame,
    Question,
    first_wave,
    frame_of,
    largest_first,
)
from discovla.captioning.llava.generation import Generator
from discovla.captioning.llava.images import Images, set_grid
from discovla.captioning.llava.memory import Limits, limits_of
from discovla.captioning.loading import load_llava_next
from discovla.devices import full_float32, resolve_device
from discovla.errors import UserError

log = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Way(NamedTuple):
    """How some questions are answered."""

    second_try: bool
    longest: int
    """Tokens of an answer at most."""


class LlavaNextCaptioner:
    """Answers of a LLaVA-NeXT model.

    Args:
        model: a Hugging Face id or a local folder.
        revision: branch, tag or commit of a Hugging Face id.
        dtype: `fp32` or `bf16`.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, …
        max_new_tokens: answers are cut off here.
        batch_size: prompts decoded together at most; None = as many as fit and are of use.
        grid: how images are cut into tiles, see `discovla.captioning.llava.images.GRIDS`.
        sampling: None = greedy.

    Raises:
        UserError: the model is not there, is damaged, or is no LLaVA-NeXT; no such device.
    """

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        dtype: str = "fp32",
        device: str = "auto",
        max_new_tokens: int = 40,
        batch_size: int | None = None,
        grid: str = "processor",
        sampling: Sampling | None = None,
    ) -> None:
        if dtype not in DTYPES:
            raise UserError(f"captioner dtype is {dtype!r}; allowed: {', '.join(DTYPES)}")
        if max_new_tokens < 1 or (batch_size is not None and batch_size < 1):
            raise UserError("max_new_tokens and batch_size must be at least 1")
        self.device = resolve_device(device)
        loaded = load_llava_next(model, revision, DTYPES[dtype])
        self.model: Any = loaded.model.to(self.device).eval()
        self.processor: Any = loaded.processor
        self.tokenizer: Any = loaded.processor.tokenizer
        self.max_new_tokens = max_new_tokens
        self.batch_size = batch_size
        self.dtype, self.grid, self.sampling = dtype, grid, sampling
        self.name, self.revision = model, loaded.revision
        set_grid(self.model, self.processor, grid)
        self._image_id = int(self.model.config.image_token_id)
        ends = self.model.generation_config.eos_token_id
        self._ends = set(ends if isinstance(ends, list) else [ends]) - {None}
        self._generator = Generator(self.model, sorted(self._ends))
        self._limits = limits_of(self._generator.sizes, batch_size, self.device)

    def describe(self) -> dict[str, Any]:
        """What decides the answers, for the metadata of the caption table."""
        told: dict[str, Any] = {
            "engine": "transformers",
            "model": self.name,
            "revision": self.revision,
            "dtype": self.dtype,
            "decoding": "greedy",
            "max_new_tokens": self.max_new_tokens,
            "seed": None,  # greedy decoding draws nothing
        }
        if Path(self.name).is_dir():
            told["weights"] = folder_fingerprint(self.name)
        if self.grid != "processor":
            told["grid"] = self.grid
        if self.sampling is not None:
            told |= {"decoding": "sampled", **vars(self.sampling)}
        return told

    @torch.inference_mode()
    @full_float32()
    def caption(
        self,
        images: Sequence[NDArray[np.uint8]],
        prompts: Sequence[str],
        *,
        second_try: bool = False,
        longer: bool = False,
    ) -> list[Caption]:
        """Answer `prompts[i]` about `images[i]`; see `discovla.captioning.engine.Captioner`."""
        if len(images) != len(prompts):
            raise ValueError(f"{len(images)} images for {len(prompts)} prompts")
        # Equal prompts about one image are one question; its number is that of its first prompt.
        first: dict[tuple[int, str], int] = {}
        numbers = [
            first.setdefault((id(image), prompt), i)
            for i, (image, prompt) in enumerate(zip(images, prompts, strict=True))
        ]
        with Images(self.model, self.processor) as encoder:
            frames = self._frames(images, prompts, first.values(), encoder)
            way = Way(second_try, self._longest_answer(frames, LONGER if longer else 1))
            answers = self._answers(largest_first(frames), encoder, way)
        return [answers[number] for number in numbers]

    def _answers(self, todo: list[Frame], encoder: Images, way: Way) -> dict[int, Caption]:
        """The answers by the number of their question."""
        answers: dict[int, Caption] = {}
        sizes = self._generator.sizes
        while todo:
            wave = first_wave(todo, self._limits, sizes, way.longest)
            if self._work(wave, todo, encoder, way, answers):
                todo = todo[len(wave) :]
            else:
                left = [frame.only(answers) for frame in todo]
                todo = [frame for frame in left if frame.questions]
        return answers

    def _work(
        self,
        wave: Sequence[Frame],
        todo: Sequence[Frame],
        encoder: Images,
        way: Way,
        answers: dict[int, Caption],
    ) -> bool:
        """Put the answers about a wave, the first frames of `todo`, into `answers`.

        Returns:
            False: memory was too small, and the limits are lower now.
        """
        limits = self._limits
        position = {id(frame): place for place, frame in enumerate(todo)}

        def encode(frames: Sequence[Frame]) -> list[torch.Tensor]:
            begin = position[id(frames[0])]
            soon = todo[begin : begin + 2 * len(frames)]
            encoder.prepare([frame.image for frame in soon])
            return encoder.encode([frame.image for frame in frames])

        def chooser(questions: Sequence[Question]) -> Chooser:
            return self._chooser(questions, wave, way)

        try:
            found = self._generator.answer(
                wave,
                encode,
                chooser,
                longest=way.longest,
                rows=limits.rows,
                tokens=limits.tokens,
            )
            for question, said in found:
                answers[question.number] = self._caption(said)
        except torch.OutOfMemoryError:
            self._limits = limits.halved(sum(len(frame.questions) for frame in wave))
        else:
            return True
        # Only here has the failed work let go of its memory.
        self._fall_back(limits)
        return False

    def _fall_back(self, before: Limits) -> None:
        if self._limits == before or (before.rows == 1 and before.tokens == 1):
            raise UserError(
                f"{self.name}: the memory of {self.device} is too small for a single prompt. Use "
                "a device with more memory, dtype: bf16, or grid: single in config/captioners.yaml;"
                " finished work is kept."
            )
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        log.warning(
            "the memory of %s was too small for %d prompts at once; going on with %d",
            self.device,
            before.rows,
            self._limits.rows,
        )

    def _chooser(self, questions: Sequence[Question], wave: Sequence[Frame], way: Way) -> Chooser:
        keys: list[bytes] = []
        if self.sampling is not None:
            images = {
                question.number: hashlib.sha256(frame.image.tobytes()).digest()
                for frame in wave
                for question in frame.questions
            }
            keys = [images[q.number] + repr(q.tokens).encode() for q in questions]
        return Chooser(
            self._generator.ends,
            second_try=way.second_try,
            sampling=self.sampling,
            keys=keys,
            steps=way.longest,
            device=self.device,
        )

    def _frames(
        self,
        images: Sequence[NDArray[np.uint8]],
        prompts: Sequence[str],
        numbers: Iterable[int],
        encoder: Images,
    ) -> list[Frame]:
        """The questions `numbers`, image by image."""
        by_image: dict[int, list[int]] = {}
        for number in numbers:
            by_image.setdefault(id(images[number]), []).append(number)
        tokens = self._tokens(dict.fromkeys(prompts))
        frames: list[Frame] = []
        for asked in by_image.values():
            image = images[asked[0]]
            # Two prompts can have the same tokens: they are asked twice, which does no harm.
            questions = [Question(number, tuple(tokens[prompts[number]])) for number in asked]
            frames.append(frame_of(image, encoder.tokens(image), questions, self._image_id))
        return frames

    def _longest_answer(self, frames: Sequence[Frame], times: int) -> int:
        """Tokens of the longest answer: `times` the usual, or what the model's window leaves."""
        wanted, window = times * self.max_new_tokens, self._generator.window
        if not window or not frames:
            return wanted
        longest = max(len(f.questions[-1].tokens) - 1 + f.image_tokens for f in frames)
        if window - longest < self.max_new_tokens:
            raise UserError(
                f"{self.name}: a prompt and its answer have up to {longest + self.max_new_tokens} "
                f"tokens, but the model looks back {window} tokens only. Set grid: single in "
                "config/captioners.yaml."
            )
        return min(wanted, window - longest)

    def chat_text(self, prompt: str) -> str:
        """The prompt in the model's conversation format, image first, ready for the answer."""
        # Captions are data: a literal "<image>" or "</s>" in one must stay text.
        marks = {*self.tokenizer.all_special_tokens, self.processor.image_token}
        for mark in sorted(marks, key=len, reverse=True):
            prompt = prompt.replace(mark, f"{mark[0]} {mark[1:]}")
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        conversation = [{"role": "user", "content": content}]
        text: str = self.processor.apply_chat_template(
            conversation, add_generation_prompt=True, tokenize=False
        )
        return text

    def _tokens(self, prompts: Iterable[str]) -> dict[str, list[int]]:
        """Token ids of each prompt, with one image token."""
        distinct = list(prompts)
        texts = [self.chat_text(prompt) for prompt in distinct]
        begin = self.tokenizer.bos_token
        # A template that writes the begin mark itself must not get a second one.
        marked = bool(begin) and texts[0].startswith(begin) if texts else False
        ids = self.tokenizer(texts, add_special_tokens=not marked)["input_ids"] if texts else []
        for text, row in zip(texts, ids, strict=True):
            if row.count(self._image_id) != 1:
                raise UserError(
                    f"{self.name}: its conversation template puts {row.count(self._image_id)} "
                    f"image tokens into a prompt, expected 1: {text!r}"
                )
        return dict(zip(distinct, ids, strict=True))

    def _caption(self, row: list[int]) -> Caption:
        length = next((n for n, token in enumerate(row) if token in self._ends), None)
        answer = row[:length]
        text = self.tokenizer.decode(
            answer, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return Caption(text.strip(), len(answer), "length" if length is None else "stop")
