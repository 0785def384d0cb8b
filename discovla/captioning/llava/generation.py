"""Answers to the questions about some frames: each prefix is read once, all rows go on from there.

In float32 an answer does not depend on what else is decoded with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from discovla.captioning.llava.attention import NAME, Pass, register
from discovla.captioning.llava.decoding import Chooser
from discovla.captioning.llava.frames import Frame, Question, by_kind
from discovla.captioning.llava.memory import Sizes
from discovla.captioning.llava.passes import (
    AnswerPass,
    Geometry,
    Prefixes,
    PrefixPass,
    Reach,
    TailPass,
    Tails,
    there,
)

#: Rows are closed up when this part of them has ended.
_ENDED = 1 / 8

Encode = Callable[[Sequence[Frame]], list[Tensor]]


@dataclass(frozen=True)
class Row:
    """One question behind the prefix of its frame."""

    question: Question
    owner: int
    """Frame number, through all stores of the wave."""
    tokens: list[int]
    """The tail, an image token for each embedding of an image in it."""
    start: int
    """Embeddings of the prefix."""
    features: Tensor | None
    """Embeddings of the image, if it is in the tail."""


class Generator:
    """Runs the language model of a LLaVA-NeXT.

    Args:
        model: `LlavaNextForConditionalGeneration`; its language model is told to use the attention
            of `discovla.captioning.llava.attention`, everything else works as before.
        ends: tokens that end an answer.
    """

    def __init__(self, model: Any, ends: Sequence[int]) -> None:
        register()
        model.set_attn_implementation({"text_config": NAME})
        config = model.config.text_config
        heads = config.num_attention_heads
        self.image_id = int(model.config.image_token_id)
        self.ends = list(ends)
        self.sizes = Sizes.of(config, model.dtype)
        self.window: int | None = getattr(config, "sliding_window", None)
        self.geometry = Geometry(
            layers=config.num_hidden_layers,
            heads=heads,
            key_heads=getattr(config, "num_key_value_heads", None) or heads,
            width=getattr(config, "head_dim", None) or config.hidden_size // heads,
            dtype=model.dtype,
            device=model.device,
        )
        self._language = model.model.language_model
        self._head = model.lm_head
        self._embed = model.get_input_embeddings()

    def answer(
        self,
        wave: Sequence[Frame],
        encode: Encode,
        chooser: Callable[[Sequence[Question]], Chooser],
        *,
        longest: int,
        rows: int,
        tokens: int,
    ) -> Iterator[tuple[Question, list[int]]]:
        """Answer every question about the frames of a wave.

        Args:
            wave: frames; those of one kind stand together.
            encode: embeddings of the images of some frames, (image tokens, width) each.
            chooser: for the questions decoded together.
            longest: tokens of an answer, which is cut off there.
            rows: questions decoded together at most.
            tokens: embeddings read together at most, but at least one frame or tail.

        Yields:
            Question and tokens of its answer, from the end mark on without meaning.
        """
        prefixes: list[Prefixes] = []
        todo: list[Row] = []
        for frames in by_kind(wave):
            start = sum(map(len, prefixes))
            store, found = self._read_prefixes(frames, encode, start, tokens)
            prefixes.append(store)
            todo += found
        for first in range(0, len(todo), rows):
            part = todo[first : first + rows]
            choose = chooser([row.question for row in part])
            said = self._decode(part, prefixes, choose, longest, tokens)
            yield from zip((row.question for row in part), said, strict=True)

    def _read_prefixes(
        self, frames: Sequence[Frame], encode: Encode, start: int, tokens: int
    ) -> tuple[Prefixes, list[Row]]:
        """The prefixes of frames of one kind, cut to one length, and the rows behind them."""
        cut = min(frame.shared for frame in frames)
        length = frames[0].length(cut)
        store = Prefixes(self.geometry, len(frames), length)
        rows: list[Row] = []
        step = max(1, tokens // max(1, length))
        for first in range(0, len(frames), step):
            part = frames[first : first + step]
            images = encode(part)
            for number, (frame, features) in enumerate(zip(part, images, strict=True), start):
                owner = number + first
                rows += self._rows(frame, cut, length, owner, features)
            if length:
                self._read_part(part, cut, images, store, first)
        return store, rows

    def _rows(
        self, frame: Frame, cut: int, length: int, owner: int, features: Tensor
    ) -> Iterator[Row]:
        for question in frame.questions:
            tail = self._expand(question.tokens[cut:], frame.image_tokens)
            behind = features if self.image_id in tail else None
            yield Row(question, owner, tail, length, behind)

    def _read_part(
        self,
        frames: Sequence[Frame],
        cut: int,
        images: Sequence[Tensor],
        store: Prefixes,
        first: int,
    ) -> None:
        rows = [self._expand(f.questions[0].tokens[:cut], f.image_tokens) for f in frames]
        inside = [image for row, image in zip(rows, images, strict=True) if self.image_id in row]
        positions = torch.arange(store.length, device=self.geometry.device)[None]
        self._forward(self._embeddings(rows, inside), positions, PrefixPass(store, first))

    def _decode(
        self,
        rows: Sequence[Row],
        prefixes: Sequence[Prefixes],
        chooser: Chooser,
        most: int,
        tokens: int,
    ) -> list[list[int]]:
        """Tokens of each row's answer, (rows, up to `most`)."""
        device = self.geometry.device
        tails = Tails(self.geometry, [len(row.tokens) for row in rows], most)
        scores = self._read_tails(rows, tails, prefixes, tokens)
        said = torch.zeros(len(rows), most, dtype=torch.int64, device=device)
        active = torch.arange(len(rows), device=device)
        ended = torch.zeros(len(rows), dtype=torch.bool, device=device)
        ends = there(np.array(self.ends, np.int64), device)
        starts = there(np.array([row.start for row in rows]), device)
        owners = np.array([row.owner for row in rows])
        reach = Reach(prefixes, owners, device)
        for step in range(most):
            chosen = chooser.choose(said[active, :step], scores, active)
            said[active, step] = chosen
            ended |= torch.isin(chosen, ends)
            finished = int(ended.sum())  # the only wait of a step: whether rows have ended
            if step + 1 == most or finished == len(active):
                break
            if finished >= _ENDED * len(active):
                left = (~ended).nonzero()[:, 0]
                chosen, active, ended = chosen[left], active[left], ended[left]
                tails.select(left)
                owners = owners[left.cpu().numpy()]
                reach = Reach(prefixes, owners, device)
            positions = starts[active] + tails.lengths + step
            hidden = self._forward(
                self._embed(chosen)[None], positions[None], AnswerPass(reach, tails, step)
            )
            scores = self._scores(hidden[0])
        return said.tolist()

    def _read_tails(
        self, rows: Sequence[Row], tails: Tails, prefixes: Sequence[Prefixes], tokens: int
    ) -> Tensor:
        """Scores of the first token of each answer, (rows, vocabulary)."""
        device = self.geometry.device
        hidden: list[Tensor] = []
        for first, last in _pieces([len(row.tokens) for row in rows], tokens):
            part = rows[first:last]
            lengths = np.array([len(row.tokens) for row in part])
            owners = np.repeat([row.owner for row in part], lengths)
            starts = np.repeat([row.start for row in part], lengths)
            ends = np.cumsum(lengths)
            within = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
            reach = Reach(prefixes, owners, device)
            packed = [token for row in part for token in row.tokens]
            inside = [row.features for row in part if row.features is not None]
            states = self._forward(
                self._embeddings([packed], inside),
                there(starts + within, device)[None],
                TailPass(reach, tails, first, lengths),
            )
            hidden.append(states[0, there(ends - 1, device)])
        return self._scores(torch.cat(hidden))

    def _forward(self, embeddings: Tensor, positions: Tensor, work: Pass) -> Tensor:
        """Last hidden states, of the shape of `embeddings`."""
        # A mask of four dimensions is handed through as it is; the passes need none.
        mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=embeddings.device)
        states: Tensor = self._language(
            inputs_embeds=embeddings,
            attention_mask=mask,
            position_ids=positions,
            use_cache=False,
            shared_pass=work,
        ).last_hidden_state
        return states

    def _scores(self, hidden: Tensor) -> Tensor:
        scores: Tensor = self._head(hidden)
        return scores.float()

    def _expand(self, tokens: Sequence[int], image_tokens: int) -> list[int]:
        """The tokens, with one image token for each embedding of the image."""
        expanded: list[int] = []
        for token in tokens:
            expanded += [token] * (image_tokens if token == self.image_id else 1)
        return expanded

    def _embeddings(self, rows: Sequence[Sequence[int]], images: Sequence[Tensor]) -> Tensor:
        """Embeddings of rows of equal length, the images in the places of their tokens."""
        device, ids = self.geometry.device, np.array(rows)
        embeddings: Tensor = self._embed(there(ids, device))
        if images:
            places = there(np.flatnonzero(ids == self.image_id), device)
            found = torch.cat(list(images)).to(embeddings.dtype)
            embeddings.flatten(0, 1).index_copy_(0, places, found)
        return embeddings


def _pieces(lengths: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Runs of rows (first, behind the last) with at most `most` tokens, at least one row each."""
    first = total = 0
    for number, length in enumerate(lengths):
        if number > first and total + length > most:
            yield first, number
            first, total = number, 0
        total += length
    yield first, len(lengths)
