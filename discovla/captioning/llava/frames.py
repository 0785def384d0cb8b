"""What is asked about one image, and which images are worked on together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from discovla.captioning.llava.memory import Limits, Sizes


@dataclass(frozen=True)
class Question:
    """One prompt about one image."""

    number: int
    tokens: tuple[int, ...]
    """The prompt with a single image token."""


@dataclass(frozen=True)
class Frame:
    """An image and the questions about it, which all begin alike."""

    image: NDArray[np.uint8]
    image_tokens: int
    """Embeddings that stand for the image."""
    questions: list[Question]
    shared: int
    """Tokens that the questions begin with, every question keeping one of its own."""
    place: int | None
    """Where the image token is in the shared beginning; None = not in it."""

    @property
    def kind(self) -> tuple[int | None, int]:
        """Frames of one kind can have prefixes of one length."""
        return self.place, self.image_tokens if self.place is not None else 0

    def length(self, cut: int) -> int:
        """Embeddings of the first `cut` tokens."""
        inside = self.place is not None and self.place < cut
        return cut + (self.image_tokens - 1 if inside else 0)

    def tail(self, question: Question) -> int:
        """Embeddings of a question behind the shared beginning."""
        inside = self.place is None
        return len(question.tokens) - self.shared + (self.image_tokens - 1 if inside else 0)

    def only(self, numbers: Mapping[int, object]) -> Frame:
        """The frame without the questions whose number is in `numbers`."""
        rest = [question for question in self.questions if question.number not in numbers]
        return Frame(self.image, self.image_tokens, rest, self.shared, self.place)


def frame_of(
    image: NDArray[np.uint8], image_tokens: int, questions: Sequence[Question], image_id: int
) -> Frame:
    """A frame whose questions are sorted by length; they must differ from one another."""
    rows = [question.tokens for question in questions]
    shortest = min(map(len, rows)) - 1
    alike = takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False))
    shared = min(sum(1 for _ in alike), shortest)
    place = rows[0].index(image_id)
    ordered = sorted(questions, key=lambda question: len(question.tokens))
    return Frame(image, image_tokens, ordered, shared, place if place < shared else None)


def largest_first(frames: Sequence[Frame]) -> list[Frame]:
    """Frames of one kind together, the largest first: too large a one shows at once."""

    def size(frame: Frame) -> tuple[int, int, int]:
        place, tokens = frame.kind
        return tokens, -1 if place is None else place, frame.shared

    return sorted(frames, key=size, reverse=True)


def first_wave(frames: Sequence[Frame], limits: Limits, sizes: Sizes, answer: int) -> list[Frame]:
    """The first frames that fit together; at least one.

    Args:
        frames: what is left to do.
        limits: rows and bytes at most.
        sizes: bytes of keys and values.
        answer: tokens of the longest answer.
    """
    wave: list[Frame] = []
    rows = tokens = longest = 0
    for frame in frames:
        rows += len(frame.questions)
        tokens += frame.length(frame.shared)
        longest = max(longest, *(frame.tail(question) for question in frame.questions))
        need = sizes.wave(prefix_tokens=tokens, rows=rows, row_tokens=longest + answer)
        if wave and (rows > limits.rows or need > limits.memory):
            break
        wave.append(frame)
    return wave


def by_kind(wave: Sequence[Frame]) -> Iterator[list[Frame]]:
    """Runs of frames of one kind."""
    run: list[Frame] = []
    for frame in wave:
        if run and frame.kind != run[-1].kind:
            yield run
            run = []
        run.append(frame)
    if run:
        yield run
