"""How the next token is chosen: greedy, or drawn with a recorded seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from discovla.errors import UserError


@dataclass(frozen=True)
class Sampling:
    """Draws from the softmax at a temperature, of the likeliest tokens that make up `top_p`."""

    seed: int
    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature <= 0 or not 0 < self.top_p <= 1:
            raise UserError(
                f"sampling with temperature {self.temperature} and top_p {self.top_p}; allowed: a "
                "temperature above 0, and top_p above 0 and up to 1"
            )


class Chooser:
    """Chooses the next token of every row.

    Args:
        ends: tokens that end an answer.
        second_try: decode so that an empty or looping answer can change.
        sampling: None = the likeliest token.
        keys: for sampling, what decides the draws of each row; (rows,) bytes.
        steps: tokens drawn at most.
        device: where the scores are.
    """

    def __init__(
        self,
        ends: Sequence[int],
        *,
        second_try: bool,
        sampling: Sampling | None,
        keys: Sequence[bytes],
        steps: int,
        device: torch.device,
    ) -> None:
        self._processors = LogitsProcessorList()
        if second_try:
            # Penalties look at the answer only: the prompt's own words may well come back.
            self._processors.append(RepetitionPenaltyLogitsProcessor(1.2))
            # Three: a word said four times holds no run of four tokens twice.
            self._processors.append(NoRepeatNGramLogitsProcessor(3))
            if ends:
                least = MinNewTokensLengthLogitsProcessor(0, 3, list(ends), device=str(device))
                self._processors.append(least)
        self._draws: Tensor | None = None
        if sampling is not None:
            self._processors.append(TemperatureLogitsWarper(sampling.temperature))
            if sampling.top_p < 1:
                self._processors.append(TopPLogitsWarper(sampling.top_p))
            mark = f"{sampling.seed}:{int(second_try)}:".encode()
            draws = np.stack([_uniform(mark + key, steps) for key in keys])
            self._draws = torch.from_numpy(draws).to(device)

    def choose(self, said: Tensor, scores: Tensor, rows: Tensor) -> Tensor:
        """The next token of each row.

        Args:
            said: the answers so far, (rows, step).
            scores: float32, (rows, vocabulary).
            rows: which of all rows these are, (rows,).

        Returns:
            (rows,) int64.
        """
        scores = self._processors(said, scores)
        if self._draws is None:
            return scores.argmax(-1)
        # Inverse of the distribution function, so that one number a row and step decides, whatever
        # rows are decoded together.
        sums = scores.softmax(-1).cumsum(-1)
        wanted = self._draws[rows, said.shape[1]][:, None] * sums[:, -1:]
        below = torch.nextafter(sums[:, -1:], torch.zeros_like(wanted))
        return torch.searchsorted(sums, torch.minimum(wanted, below), right=True)[:, 0]


def _uniform(key: bytes, steps: int) -> NDArray[np.float32]:
    seed = int.from_bytes(hashlib.sha256(key).digest(), "big")
    return np.random.Generator(np.random.Philox(seed % 2**128)).random(steps, dtype=np.float32)
