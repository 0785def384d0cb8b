"""The three passes through the language model: prefixes, tails, and one new token per row.

A *prefix* is what all prompts about a frame begin with (the template's head, the image, fixed
words); a *tail* is the rest of one prompt, and what is said after it. Tails are packed: the tokens
of all rows lie one behind the other in a batch of 1, so that the linear layers meet no padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from discovla.captioning.llava.attention import attention, merge


@dataclass(frozen=True)
class Geometry:
    """Sizes of a language model that its keys and values depend on."""

    layers: int
    heads: int
    key_heads: int
    width: int
    """Of one head."""
    dtype: torch.dtype
    device: torch.device

    def stores(self, rows: int, tokens: int) -> list[Tensor]:
        """Room for the keys (or values) of each layer, (rows, key heads, tokens, width) each.

        Zeros: what is masked counts as nothing only if it is finite.
        """
        shape = (rows, self.key_heads, tokens, self.width)
        return [
            torch.zeros(shape, dtype=self.dtype, device=self.device) for _ in range(self.layers)
        ]


def there(numbers: NDArray[np.int64], device: torch.device) -> Tensor:
    """Numbers on a device, where nothing waits for what it still has to do."""
    return torch.from_numpy(numbers).to(device, non_blocking=True)


class Prefixes:
    """Keys and values of the prefixes of some frames; all prefixes are of one length."""

    def __init__(self, geometry: Geometry, frames: int, length: int) -> None:
        self.length = length
        self.keys = geometry.stores(frames, length)
        self.values = geometry.stores(frames, length)

    def __len__(self) -> int:
        return len(self.keys[0])


class Tails:
    """Keys and values of the rows' own tokens: the tails, padded on the right, then the answers."""

    def __init__(self, geometry: Geometry, lengths: Sequence[int], answer: int) -> None:
        self.longest = max(lengths)
        self.lengths = there(np.array(lengths), geometry.device)
        self.keys = geometry.stores(len(lengths), self.longest + answer)
        self.values = geometry.stores(len(lengths), self.longest + answer)
        places = torch.arange(self.longest + answer, device=geometry.device)
        padding = (places >= self.lengths[:, None]) & (places < self.longest)
        self.bias = torch.zeros(padding.shape, dtype=geometry.dtype, device=geometry.device)
        self.bias = self.bias.masked_fill(padding, -torch.inf)[:, None, None]

    def select(self, rows: Tensor) -> None:
        """Keep only these rows, given by their numbers."""
        self.lengths, self.bias = self.lengths[rows], self.bias[rows]
        for layer in range(len(self.keys)):
            self.keys[layer] = self.keys[layer][rows]
            self.values[layer] = self.values[layer][rows]


class _Part:
    """The tokens that look at consecutive frames of one `Prefixes`."""

    def __init__(self, prefixes: Prefixes, frames: NDArray[np.int64], tokens: NDArray[np.int64]):
        self.first, self.last = int(frames[0]), int(frames[-1]) + 1
        counts = np.bincount(frames - self.first)
        self.places = np.arange(len(frames)) - (np.cumsum(counts) - counts)[frames - self.first]
        self.places += (frames - self.first) * counts.max()
        slots = np.full(len(counts) * counts.max(), tokens[0])
        slots[self.places] = tokens
        self.prefixes = prefixes
        self.slots = slots.reshape(len(counts), -1)


class Reach:
    """Which tokens look at which prefix.

    Args:
        prefixes: the stores of a wave; their frames are numbered through, store by store.
        owners: the frame of each token, in ascending order.
        device: where the tokens are.
    """

    def __init__(
        self, prefixes: Sequence[Prefixes], owners: NDArray[np.int64], device: torch.device
    ) -> None:
        self._parts: list[tuple[_Part, Tensor]] = []
        places: list[NDArray[np.int64]] = []
        start = size = 0
        for store in prefixes:
            tokens = np.flatnonzero((owners >= start) & (owners < start + len(store)))
            if len(tokens):
                part = _Part(store, owners[tokens] - start, tokens)
                self._parts.append((part, there(part.slots, device)))
                places.append(part.places + size)
                size += part.slots.size
            start += len(store)
        self._places = there(np.concatenate(places), device)

    def attend(self, layer: int, query: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
        """Attention of `query` (tokens, heads, width) to its prefixes, and log-sum-exps."""
        outs, totals = [], []
        heads, width = query.shape[1:]
        for part, slots in self._parts:
            keys = part.prefixes.keys[layer][part.first : part.last]
            values = part.prefixes.values[layer][part.first : part.last]
            frames, key_heads = keys.shape[:2]
            # All tokens of a frame, and all heads that share keys, are queries of one matrix.
            grouped = query[slots].view(frames, -1, key_heads, heads // key_heads, width)
            grouped = grouped.transpose(1, 2)
            out, total = attention(grouped.flatten(2, 3), keys, values, scaling)
            shape = grouped.shape[:4]
            outs.append(out.view(*shape, width).transpose(1, 2).reshape(-1, heads, width))
            totals.append(total.view(shape).transpose(1, 2).reshape(-1, heads))
        return torch.cat(outs)[self._places], torch.cat(totals)[self._places]


class PrefixPass:
    """Reads the prefixes of consecutive frames from `start` on; a batch of (frames, length)."""

    def __init__(self, prefixes: Prefixes, start: int) -> None:
        self.prefixes, self.start = prefixes, start

    def attend(
        self, module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """Plain causal attention; keys and values are kept."""
        frames = slice(self.start, self.start + len(query))
        self.prefixes.keys[module.layer_idx][frames] = key
        self.prefixes.values[module.layer_idx][frames] = value
        out: Tensor = sdpa_attention_forward(
            module, query, key, value, None, scaling=scaling, is_causal=True
        )[0]
        return out


class TailPass:
    """Reads the packed tails, of these lengths, of the rows from `first` on."""

    def __init__(self, reach: Reach, tails: Tails, first: int, lengths: NDArray[np.int64]) -> None:
        self.reach, self.tails, self.rows = reach, tails, slice(first, first + len(lengths))
        self.longest = int(lengths.max())
        real = np.arange(self.longest) < lengths[:, None]
        device = tails.lengths.device
        #: Token of each place of the padded batch (any token where there is none), and back.
        self.padded = there((real.cumsum() - 1).reshape(real.shape), device)
        self.packed = there(np.flatnonzero(real), device)

    def attend(
        self, module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """Attention to the prefix, and causal attention within each tail."""
        layer = module.layer_idx
        queries, keys, values = (x[0].transpose(0, 1) for x in (query, key, value))
        # Padding on the right: causal attention never sees it.
        padded = [x[self.padded].transpose(1, 2) for x in (queries, keys, values)]
        self.tails.keys[layer][self.rows, :, : self.longest] = padded[1]
        self.tails.values[layer][self.rows, :, : self.longest] = padded[2]
        own, total = attention(padded[0], padded[1], padded[2], scaling, causal=True)
        own = own.transpose(1, 2).flatten(0, 1)[self.packed]
        total = total.transpose(1, 2).flatten(0, 1)[self.packed]
        return merge(own, total, *self.reach.attend(layer, queries, scaling))[None]


class AnswerPass:
    """Reads the newest token of every row, number `step` of the answer."""

    def __init__(self, reach: Reach, tails: Tails, step: int) -> None:
        self.reach, self.tails, self.place = reach, tails, tails.longest + step

    def attend(
        self, module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """Attention to the prefix, and to the row's tail and answer so far."""
        layer = module.layer_idx
        keys, values = self.tails.keys[layer], self.tails.values[layer]
        keys[:, :, self.place] = key[0].transpose(0, 1)
        values[:, :, self.place] = value[0].transpose(0, 1)
        seen = slice(0, self.place + 1)
        queries = query[0].transpose(0, 1)
        rows, heads, width = queries.shape
        grouped = queries.reshape(rows, keys.shape[1], -1, width)
        bias = self.tails.bias[..., seen]
        own, total = attention(grouped, keys[:, :, seen], values[:, :, seen], scaling, bias=bias)
        own, total = own.reshape(rows, heads, width), total.reshape(rows, heads)
        return merge(own, total, *self.reach.attend(layer, queries, scaling))[None]
