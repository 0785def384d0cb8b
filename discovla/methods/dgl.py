"""DGL: prompts of both towers from one bank, and global prompts that see the whole video.

Written from a description of the method, not from its authors' code.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from discovla.methods.parts import Block, Linear, Vectors, drop, insert, quick_gelu
from discovla.models.hooks import TEXT, VISION, Core, Dims, Head, Method, State
from discovla.settings import RunSettings

_HEAD_WIDTH = 64


class Uniform(Vectors):
    """Free vectors, uniform within `bound`."""

    def __init__(self, *shape: int, bound: float) -> None:
        super().__init__(*shape)
        self.bound = bound

    def init_tensor(self, name: str, tensor: Tensor, generator: torch.Generator) -> None:
        """Uniform."""
        tensor.uniform_(-self.bound, self.bound, generator=generator)


class LinearPrompts(nn.Module):
    """A bank (layers, n, Dv): the local prompts of all frames, and two linear maps to the text.

    The postfix map is inert: its prompts follow the end of the text, which no earlier word sees.
    """

    def __init__(self, dims: Dims, count: int, bound: float) -> None:
        super().__init__()
        layers = max(dims.vision.layers, dims.text.layers)
        self.bank = Uniform(layers, count, dims.vision.width, bound=bound)
        self.prefix = Linear(dims.vision.width, dims.text.width)
        self.postfix = Linear(dims.vision.width, dims.text.width)

    def local(self, frames: int) -> Tensor:
        """(layers, 1, n, Dv): the same for every frame."""
        return self.bank[:][:, None]

    def texts(self) -> Tensor:
        """(layers, 2n, Dt): prefix and postfix prompts."""
        return torch.cat([self.prefix(self.bank[:]), self.postfix(self.bank[:])], 1)


class TransformerPrompts(nn.Module):
    """A bank (layers, 2n + nF, Dv) whose rows meet in a transformer block, layer by layer.

    The first 2n rows become prefix and postfix prompts through an MLP, the others the local prompts
    of frame after frame.
    """

    def __init__(self, dims: Dims, count: int, frames: int) -> None:
        super().__init__()
        layers, width = max(dims.vision.layers, dims.text.layers), dims.vision.width
        self.count = count
        self.bank = Vectors(layers, 2 * count + count * frames, width, std=1.0)
        self.block = Block(width, max(width // _HEAD_WIDTH, 1))
        self.fc = Linear(width, 2 * width)
        self.proj = Linear(2 * width, dims.text.width)

    def local(self, frames: int) -> Tensor:
        """(layers, frames, n, Dv)."""
        mixed: Tensor = self.block(self.bank[:])
        return mixed[:, 2 * self.count :].unflatten(1, (-1, self.count))[:, :frames]

    def texts(self) -> Tensor:
        """(layers, 2n, Dt): prefix and postfix prompts."""
        mixed: Tensor = self.block(self.bank[:])
        prompts: Tensor = self.proj(quick_gelu(self.fc(mixed[:, : 2 * self.count])))
        return prompts


class DGL(Method):
    """Frames see the global prompts; the global prompts see themselves and all of every frame.

    Vision: n local prompts behind CLS, new in every block; n global prompts, put in once. None of
    them has a position or passes the first LayerNorm. Text: n prefix prompts behind the start mark,
    new in every block, while the words keep their positions. Postfix prompts are made, so that the
    count is DGL's, but not put in: nothing could see them.

    Every frame carries a copy of the global prompts, which stay equal: their results are computed
    once per video. The video's feature is the first of them, not a mean of frames.
    """

    source = "Yang et al., 2024 (DGL); described after knightyxp/DGL 9139fd1"

    def __init__(self, dims: Dims, settings: RunSettings) -> None:
        super().__init__(dims, settings)
        options, width = settings.options, dims.vision.width
        count: int = options.prompts  # type: ignore[attr-defined]
        self.count, self.pooling = count, options.pool  # type: ignore[attr-defined]
        bound = math.sqrt(6 / (3 * dims.patch_size**2 + width))
        self.global_prompts = Uniform(count, width, bound=bound)
        self.prompts: LinearPrompts | TransformerPrompts
        if options.generator == "linear":  # type: ignore[attr-defined]
            self.prompts = LinearPrompts(dims, count, bound)
        else:
            self.prompts = TransformerPrompts(dims, count, settings.frames)

    def gaps(self) -> list[str]:
        """Vision, as the paper (§1) says of it."""
        return ["vision"]

    def inert(self) -> list[str]:
        """The linear map of the postfix prompts."""
        return [n for n, _ in self.named_parameters() if n.startswith("prompts.postfix.")]

    def begin(self, state: State) -> None:
        """Make the prompts of all blocks."""
        if state.tower == TEXT:
            state.aux["prompts"] = self.prompts.texts()[:, : self.count]
        else:
            local = self.prompts.local(state.groups)
            local = local.expand(-1, state.groups, -1, -1).repeat(1, state.batch, 1, 1)
            state.aux["prompts"] = local

    def embed(self, state: State, when: str) -> None:
        """Global prompts come in once, behind the first LayerNorm."""
        if when == "after" and state.tower == VISION:
            insert(state, self.global_prompts[:])

    def pre_layer(self, i: int, state: State) -> None:
        """Local or prefix prompts of this block; in a frame the order is CLS, local, global."""
        insert(state, state.aux["prompts"][i])

    def post_layer(self, i: int, state: State) -> None:
        """Their results are not used."""
        drop(state, self.count)

    def attend(self, i: int, state: State, q: Tensor, k: Tensor, v: Tensor, core: Core) -> Tensor:
        """A frame's tokens in their own sequence, the global prompts over the whole video."""
        y = super().attend(i, state, q, k, v, core)
        if state.tower == TEXT:
            return y
        start, stop = 1 + self.count, 1 + 2 * self.count
        found = core.out(core.mix(*self._global_view(state, q, k, v, start, stop)))
        found = found.repeat_interleave(state.groups, 0)
        return torch.cat([y[:, :start], found, y[:, stop:]], 1)

    def _global_view(
        self, state: State, q: Tensor, k: Tensor, v: Tensor, start: int, stop: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of the global prompts; keys and values of them, once, and of all frames."""
        q, k, v = (t.unflatten(0, (state.batch, state.groups)) for t in (q, k, v))

        def all_of(t: Tensor) -> Tensor:
            frames = torch.cat([t[:, :, :start], t[:, :, stop:]], 2).flatten(1, 2)
            return torch.cat([t[:, 0, start:stop], frames], 1)

        return q[:, 0, start:stop], all_of(k), all_of(v)

    def readout(self, state: State, head: Head) -> Tensor:
        """Text: the end mark. Vision: (batch, n + F, D), global prompts, then class tokens."""
        if state.tower == TEXT:
            return super().readout(state, head)
        x = state.x.unflatten(0, (state.batch, state.groups))
        return head(torch.cat([x[:, 0, 1 : 1 + self.count], x[:, :, 0]], 1))

    def pool(self, frames: Tensor, mask: Tensor | None) -> Tensor:
        """The first global prompt, or plain means of vectors that are not normalised before."""
        parts = {
            "global": frames[:, :1],
            "globals": frames[:, : self.count],
            "frames": frames[:, self.count :],
            "both": frames,
        }
        return parts[self.pooling].mean(1)
