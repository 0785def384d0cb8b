"""VoP: prompts in both towers; F, P and C bring what frames have to do with each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from discovla.methods.parts import Linear, Vectors
from discovla.methods.prompt import Prompt
from discovla.models.hooks import TEXT, VISION, Dims, State
from discovla.settings import RunSettings


class VoP(Prompt):
    """Base VoP, every frame for itself; with `frame_layers`, frames are joined above them (F).

    A joined block sees one sequence of all class tokens, the video's prompts, and all patches. A
    trained position of every frame is added to all of its tokens before. Prompts hold n vectors;
    P and C replace some of those in the lower blocks by vectors of each frame's own.
    """

    source = "Huang et al., 2023 (VoP); modelscope/modelscope 2905da1 for the prompts"

    def __init__(self, dims: Dims, settings: RunSettings) -> None:
        super().__init__(dims, settings)
        options, vision = settings.options, dims.vision
        count: int = options.prompts  # type: ignore[attr-defined]
        self.own: int = options.frame_prompts  # type: ignore[attr-defined]
        lower = options.frame_layers  # type: ignore[attr-defined]
        self.lower: int = vision.layers if lower is None else lower
        """Blocks in which frames are apart."""
        sizes = {
            VISION: (self.lower, count - self.own, vision.width),
            "joined": (vision.layers - self.lower, count, vision.width),
            TEXT: (dims.text.layers, count, dims.text.width),
        }
        self.prompts = nn.ModuleDict({k: Vectors(*v) for k, v in sizes.items() if v[0] * v[1]})
        if self.lower < vision.layers:
            self.frame_position = Vectors(settings.frames, vision.width, std=0.0)

    def gaps(self) -> list[str]:
        """Vision, as the paper (§1) says of VoP, once frames have to do with each other."""
        return ["vision"] if hasattr(self, "frame_position") else []

    def uncounted(self) -> list[str]:
        """Positions of the frames: not in the counts that VoP prints."""
        return [n for n, _ in self.named_parameters() if n.startswith("frame_position.")]

    def block_prompts(self, i: int, state: State) -> Tensor:
        """Generic prompts, and in lower vision blocks the frames' own behind them."""
        if state.tower == TEXT:
            return super().block_prompts(i, state)
        if i >= self.lower:
            joined: Tensor = self.prompts["joined"][i - self.lower]  # type: ignore[index]
            return joined
        own = self.frame_prompts(i, state) if self.own else None
        if VISION not in self.prompts:
            assert own is not None  # at least one prompt is asked for
            return own
        generic = super().block_prompts(i, state)
        return generic if own is None else torch.cat([generic.expand(len(own), -1, -1), own], 1)

    def frame_prompts(self, i: int, state: State) -> Tensor | None:
        """Vectors of every frame's own, (batch · frames, own, D), which P and C bring.

        Base VoP has none, and its options refuse to ask for any.
        """
        return None

    def _enter(self, i: int, state: State) -> None:
        if state.tower == VISION and i == self.lower:
            self._join(state)
        super()._enter(i, state)

    def _join(self, state: State) -> None:
        """All frames of a video become one sequence: class tokens first, then patches."""
        x = state.x.unflatten(0, (state.batch, state.groups))
        x = x + self.frame_position[: state.groups][:, None]
        state.x = torch.cat([x[:, :, 0], x[:, :, 1:].flatten(1, 2)], 1)
        state.n_lead, state.groups = state.groups, 1


class VoPFramePosition(VoP):
    """VoP F+P: a table of prompts for every place of a frame in the video."""

    source = "Huang et al., 2023 (VoP F+P); the paper's text"

    def __init__(self, dims: Dims, settings: RunSettings) -> None:
        super().__init__(dims, settings)
        self.table = Vectors(self.lower, settings.frames, self.own, dims.vision.width)

    def frame_prompts(self, i: int, state: State) -> Tensor:
        """The same for every video."""
        own = self.table[i][: state.groups]
        return own.expand(state.batch, -1, -1, -1).flatten(0, 1)


class VoPFrameContext(VoP):
    """VoP F+C: prompts made of what the frames show, by an LSTM over their class tokens.

    LSTM and linear map serve all lower blocks. The described architecture has 14,269,440 values;
    the printed 14.10 M matches no consistent count.
    """

    source = "Huang et al., 2023 (VoP F+C); the paper's text"

    def __init__(self, dims: Dims, settings: RunSettings) -> None:
        super().__init__(dims, settings)
        width = dims.vision.width
        self.context = _BiLSTM(width, width, batch_first=True, bidirectional=True)
        self.mix = Linear(2 * width, self.own * width)

    def frame_prompts(self, i: int, state: State) -> Tensor:
        """From the class tokens of the block's input, of all frames of a video in order."""
        cls = state.x[:, 0].unflatten(0, (state.batch, state.groups))
        context, _ = self.context(cls)
        return self.mix(context).flatten(0, 1).unflatten(-1, (self.own, -1))


class _BiLSTM(nn.LSTM):
    """PyTorch's, which starts uniform within 1/√hidden."""

    def init_tensor(self, name: str, tensor: Tensor, generator: torch.Generator) -> None:
        bound = self.hidden_size**-0.5
        tensor.uniform_(-bound, bound, generator=generator)
