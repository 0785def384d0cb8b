"""LLaVA-NeXT (§3.4) through transformers' own classes.

An answer is asked for in three steps: every distinct image is encoded once, its embeddings are put
in the place of the image token of each of its prompts, and prompts of similar length are decoded
together. Padding is on the left and masked, so in float32 an answer does not depend on its batch.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from discovla.captioning.engine import Caption
from discovla.captioning.loading import load_llava_next
from discovla.errors import UserError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
GREEDY: dict[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    # A checkpoint's own generation_config may set these; greedy means greedy.
    "temperature": None,
    "top_p": None,
    "top_k": None,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "min_new_tokens": 0,
}
SECOND_TRY: dict[str, Any] = {
    **GREEDY,
    "repetition_penalty": 1.2,
    "no_repeat_ngram_size": 4,
    "min_new_tokens": 3,
}
#: Batches whose images are held encoded at the same time: enough to sort prompts by length, few
#: enough for memory (one 320 x 240 frame is 11 MB in a 7 B model).
_BATCHES_AT_ONCE = 4


class LlavaNextCaptioner:
    """Greedy answers of a LLaVA-NeXT model.

    Args:
        model: a Hugging Face id or a local folder.
        revision: branch, tag or commit of a Hugging Face id.
        dtype: `fp32` or `bf16`.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, …
        max_new_tokens: answers are cut off here.
        batch_size: prompts decoded together.

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
        batch_size: int = 16,
    ) -> None:
        if dtype not in DTYPES:
            raise UserError(f"captioner dtype is {dtype!r}; allowed: {', '.join(DTYPES)}")
        if max_new_tokens < 1 or batch_size < 1:
            raise UserError("max_new_tokens and batch_size must be at least 1")
        self.device = _device(device)
        loaded = load_llava_next(model, revision, DTYPES[dtype])
        self.model: Any = loaded.model.to(self.device).eval()
        self.processor: Any = loaded.processor
        self.tokenizer: Any = loaded.processor.tokenizer
        self.max_new_tokens = max_new_tokens
        self.batch_size = batch_size
        self.dtype = dtype
        self.name, self.revision = model, loaded.revision
        self._image_id = int(self.model.config.image_token_id)
        generation = self.model.generation_config
        ends = generation.eos_token_id
        self._ends = set(ends if isinstance(ends, list) else [ends]) - {None}
        self._padding = next(
            token
            for token in (generation.pad_token_id, self.tokenizer.pad_token_id, *self._ends, 0)
            if token is not None
        )

    def describe(self) -> dict[str, Any]:
        """What decides the answers, for the metadata of the caption table."""
        return {
            "engine": "transformers",
            "model": self.name,
            "revision": self.revision,
            "dtype": self.dtype,
            "decoding": "greedy",
            "max_new_tokens": self.max_new_tokens,
            "seed": None,  # greedy decoding draws nothing
        }

    @torch.inference_mode()
    def caption(
        self,
        images: Sequence[NDArray[np.uint8]],
        prompts: Sequence[str],
        *,
        second_try: bool = False,
    ) -> list[Caption]:
        """Answer `prompts[i]` about `images[i]`; see `discovla.captioning.engine.Captioner`."""
        if len(images) != len(prompts):
            raise ValueError(f"{len(images)} images for {len(prompts)} prompts")
        try:
            return self._answer(images, prompts, SECOND_TRY if second_try else GREEDY)
        except torch.OutOfMemoryError:
            raise UserError(
                f"{self.name}: the memory of {self.device} is too small for batches of "
                f"{self.batch_size}. Lower batch_size in config/captioners.yaml; finished work "
                "is kept."
            ) from None

    def _answer(
        self,
        images: Sequence[NDArray[np.uint8]],
        prompts: Sequence[str],
        decoding: dict[str, Any],
    ) -> list[Caption]:
        tokens = self._tokens(prompts)
        answers: dict[int, Caption] = {}
        for window in self._windows(images):
            features = self._encode({id(images[i]): images[i] for i in window})
            rows = {i: _expand(tokens[i], self._image_id, features[id(images[i])]) for i in window}
            # Longest first, so that a batch too large for the memory shows at once.
            order = sorted(window, key=lambda i: -len(rows[i]))
            for start in range(0, len(order), self.batch_size):
                batch = order[start : start + self.batch_size]
                embedded = [features[id(images[i])] for i in batch]
                generated = self._generate([rows[i] for i in batch], embedded, decoding)
                answers.update(zip(batch, generated, strict=True))
        return [answers[i] for i in range(len(prompts))]

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

    def _tokens(self, prompts: Sequence[str]) -> list[list[int]]:
        """Token ids of each prompt, with one image token."""
        distinct = dict.fromkeys(prompts)
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
        by_prompt = dict(zip(distinct, ids, strict=True))
        return [by_prompt[prompt] for prompt in prompts]

    def _windows(self, images: Sequence[NDArray[np.uint8]]) -> Iterator[list[int]]:
        """Numbers of the prompts whose images are encoded together; an image is in one only."""
        by_image: dict[int, list[int]] = {}
        for i, image in enumerate(images):
            by_image.setdefault(id(image), []).append(i)
        window: list[int] = []
        for numbers in by_image.values():
            window += numbers
            if len(window) >= _BATCHES_AT_ONCE * self.batch_size:
                yield window
                window = []
        if window:
            yield window

    def _encode(self, images: dict[int, NDArray[np.uint8]]) -> dict[int, torch.Tensor]:
        """Embeddings of each image as the language model reads them, (tokens, width)."""
        features: list[torch.Tensor] = []
        todo = list(images.values())
        for start in range(0, len(todo), self.batch_size):
            inputs = self.processor.image_processor(
                todo[start : start + self.batch_size],
                return_tensors="pt",
                input_data_format="channels_last",
            )
            encoded = self.model.model.get_image_features(
                inputs["pixel_values"].to(self.device, self.model.dtype),
                inputs["image_sizes"],
                return_dict=True,
            )
            features += encoded.pooler_output
        return dict(zip(images, features, strict=True))

    def _generate(
        self, rows: list[list[int]], features: list[torch.Tensor], decoding: dict[str, Any]
    ) -> list[Caption]:
        """Decode rows of token ids, the features standing for their image tokens."""
        longest = max(map(len, rows))
        ids = torch.tensor([[self._padding] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        ids, mask = ids.to(self.device), mask.to(self.device)
        places = (ids == self._image_id) & (mask == 1)
        embeddings = self.model.get_input_embeddings()(ids)
        embeddings[places] = torch.cat(features).to(embeddings.dtype)
        with warnings.catch_warnings():
            # Penalties look at the answer only: the prompt's own words may well come back.
            warnings.filterwarnings("ignore", message=".*with `inputs_embeds` and without")
            output = self.model.generate(
                inputs_embeds=embeddings,
                attention_mask=mask,
                max_new_tokens=self.max_new_tokens,
                pad_token_id=self._padding,
                **decoding,
            )
        return [self._caption(row) for row in output.tolist()]

    def _caption(self, row: list[int]) -> Caption:
        length = next((n for n, token in enumerate(row) if token in self._ends), None)
        answer = row[:length]
        text = self.tokenizer.decode(
            answer, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return Caption(text.strip(), len(answer), "length" if length is None else "stop")


def _expand(row: list[int], image_id: int, features: torch.Tensor) -> list[int]:
    """The token ids with one image token for each embedding of the image."""
    place = row.index(image_id)
    return row[:place] + [image_id] * len(features) + row[place + 1 :]


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"no device {name!r}; allowed: auto, cpu, cuda, cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda was asked for, but torch sees no CUDA device; use device: cpu")
    return device
