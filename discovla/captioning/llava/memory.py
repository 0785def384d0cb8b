"""How much is worked on together: from free memory and the sizes of the model."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

#: Rows beyond this gain nothing: a step is bound by arithmetic by then.
_MOST_ROWS = {"cuda": 1024, "cpu": 256}
#: Tokens read together: enough for full speed of the matrix units; on a CPU, of the caches.
_TOKENS_AT_ONCE = {"cuda": 16384, "cpu": 4096}
#: Part of the free memory that is planned for; the rest is for what is not counted here.
_USED = 0.8


@dataclass(frozen=True)
class Sizes:
    """Bytes that a language model needs per token."""

    cached: int
    """Keys and values of one token in all layers."""
    working: int
    """Activations of one token inside a layer, the most at any time."""
    scores: int
    """Scores of one next token over the vocabulary, in float32, with a copy."""

    @classmethod
    def of(cls, text_config: Any, dtype: torch.dtype) -> Sizes:
        """From a language model's configuration."""
        heads = text_config.num_attention_heads
        width = getattr(text_config, "head_dim", None) or text_config.hidden_size // heads
        key_heads = getattr(text_config, "num_key_value_heads", None) or heads
        cached = 2 * text_config.num_hidden_layers * key_heads * width
        attention = 4 * (heads + key_heads) * width
        inside = 6 * text_config.hidden_size + 3 * text_config.intermediate_size + attention
        bytes_each = dtype.itemsize
        return cls(cached * bytes_each, inside * bytes_each, 2 * 4 * text_config.vocab_size)

    def wave(self, *, prefix_tokens: int, rows: int, row_tokens: int) -> int:
        """Bytes that a wave holds besides what it computes with."""
        return (prefix_tokens + rows * row_tokens) * self.cached + rows * self.scores


@dataclass(frozen=True)
class Limits:
    """What is worked on together at most."""

    rows: int
    """Prompts decoded together."""
    tokens: int
    """Tokens read together."""
    memory: int
    """Bytes of keys, values and scores."""

    def halved(self, rows: int) -> Limits:
        """After `rows` rows were too many."""
        return Limits(max(1, min(rows, self.rows) // 2), max(1, self.tokens // 2), self.memory // 2)


def limits_of(sizes: Sizes, batch_size: int | None, device: torch.device) -> Limits:
    """Limits for the memory that is free now.

    Args:
        sizes: of the language model, which is in memory already.
        batch_size: rows at most; None = as many as are of use.
        device: where the model is.
    """
    kind = device.type if device.type in _MOST_ROWS else "cuda"
    memory = int(_USED * free_memory(device))
    # Reading gets a quarter: it needs much for a moment, keys and values stay.
    tokens = min(_TOKENS_AT_ONCE[kind], memory // 4 // sizes.working)
    rows = _MOST_ROWS[kind] if batch_size is None else batch_size
    return Limits(rows, max(1, tokens), memory - tokens * sizes.working)


def free_memory(device: torch.device) -> int:
    """Bytes that can still be taken on a device."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + unused)
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as lines:
            entries = dict(line.split(":", 1) for line in lines)
        return int(entries["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        # Not Linux: half of what the machine has.
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
