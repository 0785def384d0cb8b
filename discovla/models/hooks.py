"""What a method may change: the state of a tower's pass, and 13 hook points with empty defaults.

The encoder calls every hook at its place and knows no method by name. A method overrides only what
it needs, one function serving both towers (`state.tower` tells them apart); it extends another
method by inheritance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from discovla import losses
from discovla.models.dims import TEXT, VISION, Dims, TowerDims
from discovla.settings import RunSettings

__all__ = [
    "HOOKS",
    "TEXT",
    "VISION",
    "Batch",
    "Core",
    "Dims",
    "Head",
    "Method",
    "Outputs",
    "State",
    "TextInput",
    "TowerDims",
    "tokenwise",
]

Batch = Mapping[str, Tensor]

HOOKS = (
    "trainable",
    "begin",
    "embed",
    "pre_layer",
    "post_layer",
    "qkv",
    "attend",
    "attn_out",
    "mid_layer",
    "mlp_out",
    "inner",
    "readout",
    "pool",
    "text_inputs",
    "losses",
)
"""Names of the overridable functions (`pre_layer`/`post_layer` and `readout`/`pool` are pairs)."""


@dataclass
class State:
    """One pass of a tower, changed in place by hooks.

    `x` is (batch · groups, T, width), sample-major: a sample's groups are neighbours. A group is a
    frame (vision), a caption (text), or whatever a method joins.
    """

    tower: str
    x: Tensor
    batch: int
    groups: int
    n_lead: int = 1
    """Vision: class tokens at the front of every group; the read-out takes all of them."""
    eot: Tensor | None = None
    """Text: (batch · groups) place of the end-of-text token."""
    key_mask: Tensor | None = None
    """Text: (batch · groups, T) bool, False on padding. Causal attention needs none (the end token
    comes before every pad), attention across captions does."""
    key_bias: Tensor | None = None
    """Added to the attention logits: (batch · groups, T) or (batch · groups, T, T)."""
    causal: bool = False
    joint: bool = False
    """Text: the captions of a sample belong together (pseudo captions of one video's frames)."""
    frame_mask: Tensor | None = None
    """Vision: (batch, frames), nonzero where a frame counts."""
    size: Tensor | None = None
    """(batch · groups, T) how many tokens each token stands for, once a method merges some."""
    aux: dict[str, Any] = field(default_factory=dict)
    """Whatever a method wants to carry along the pass."""

    def lead(self) -> Tensor:
        """(batch · groups) place of the token that sums up its group: CLS or end-of-text."""
        if self.eot is not None:
            return self.eot
        return self.x.new_zeros(len(self.x), dtype=torch.long)


class TextInput(NamedTuple):
    """Captions to be encoded: ids and mask (B, n, L); `joint` as in `State`."""

    ids: Tensor
    mask: Tensor
    joint: bool = False


@dataclass
class Outputs:
    """Features of a batch in float32, none normalised (video: mean of normalised frames)."""

    text: Tensor
    """(B, D) video captions."""
    frames: Tensor
    """(B, F, D) frames."""
    video: Tensor
    """(B, D) pooled frames."""
    logit_scale: Tensor
    """() exp(logit_scale) = 1/τ."""
    frame_texts: Tensor | None = None
    """(B, F, D) pseudo captions, where they are read."""


class Core(Protocol):
    """Attention of one block, given to `attend`."""

    heads: int

    def mix(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """Softmax attention of (N, Tq, D) over (N, Tk, D); bias (N, Tk) or (N, Tq, Tk)."""

    def out(self, y: Tensor) -> Tensor:
        """The frozen output projection."""


class Head(Protocol):
    """Final LayerNorm and projection of a tower: (..., width) to (..., D)."""

    def __call__(self, x: Tensor) -> Tensor:
        """Apply both."""


_Hook = TypeVar("_Hook", bound=Callable[..., Any])


def tokenwise(hook: _Hook) -> _Hook:
    """Mark an overridden hook whose result for a lead token needs no other token's queries or rows.

    The last block is then computed for the lead tokens alone (`lead.py`).
    """
    hook.tokenwise = True  # type: ignore[attr-defined]
    return hook


class Method(nn.Module):
    """CLIP, untouched: every hook point with its empty default.

    Subclasses own their parameters; each submodule that owns some has
    `init_tensor(name, tensor, generator)`.

    Args:
        dims: sizes of the backbone.
        settings: settings of the run.
    """

    source = ""
    """Paper and code that the method follows."""
    reads_captions = False
    """Whether the method knows what to do with pseudo captions (α, β)."""

    def __init__(self, dims: Dims, settings: RunSettings) -> None:
        super().__init__()
        self.dims = dims
        self.settings = settings

    def initialise(self, seed: int) -> None:
        """Draw every own tensor from a generator that depends only on (seed, tensor's name)."""
        for prefix, module in self.named_modules():
            for name, tensor in module.named_parameters(recurse=False):
                key = f"{seed}/{prefix}.{name}".encode()
                generator = torch.Generator().manual_seed(
                    int.from_bytes(hashlib.sha256(key).digest()[:8], "big", signed=True)
                )
                with torch.no_grad():
                    module.init_tensor(name, tensor, generator)  # type: ignore[operator]

    @classmethod
    def hooks_used(cls) -> list[str]:
        """The hook points that this method overrides, in calling order."""
        return [name for name in HOOKS if getattr(cls, name) is not getattr(Method, name)]

    def gaps(self) -> list[str]:
        """Which of the paper's gaps (Figure 1) are addressed: vision, language, alignment."""
        return []

    def inert(self) -> list[str]:
        """Names of own parameters that play no part at inference."""
        return []

    def needs_every_token(self) -> bool:
        """Whether hooks marked `tokenwise` need all tokens of the last block after all."""
        return False

    def uncounted(self) -> list[str]:
        """Names of own parameters that the method's authors train but leave out of their count."""
        return []

    def decays(self, name: str) -> bool:
        """Whether weight decay acts on a trained tensor; `name` as in `named_parameters`.

        Here the setting `decay`; a method whose authors decide by other names overrides it.
        """
        return self.settings.decay == "all" or not name.endswith("bias")

    # Hook points

    def trainable(self, clip: nn.Module) -> dict[str, float]:
        """Names of CLIP's parameters to train, each with a factor on the learning rate."""
        return {}

    def begin(self, state: State) -> None:
        """Once per pass, before anything else; shared tensors go to `state.aux`."""

    def embed(self, state: State, when: str) -> None:
        """Change the embedded tokens.

        Vision: `before` and `after` ln_pre, positions being added. Text: `before` and `after` the
        positional table is added (tokens inserted before it move the words to later rows).
        """

    def pre_layer(self, i: int, state: State) -> None:
        """Before block i: insert tokens, regroup frames, merge clips."""

    def post_layer(self, i: int, state: State) -> None:
        """After block i: drop tokens, regroup."""

    def qkv(self, i: int, state: State, h: Tensor, qkv: Tensor) -> Tensor:
        """Queries, keys and values (N, T, 3·width) of the layer-normed input h (N, T, width)."""
        return qkv

    def attend(self, i: int, state: State, q: Tensor, k: Tensor, v: Tensor, core: Core) -> Tensor:
        """Attention after the output projection: (N, T, width) from q, k, v of that shape."""
        return core.out(core.mix(q, k, v, bias=state.key_bias, causal=state.causal))

    def attn_out(self, i: int, state: State, y: Tensor) -> Tensor:
        """Result of the attention, before the residual sum."""
        return y

    def mid_layer(self, i: int, state: State, k: Tensor) -> None:
        """Between the attention's residual sum and the MLP; may shorten `state.x`."""

    def mlp_out(self, i: int, state: State, y: Tensor) -> Tensor:
        """Result of the MLP, before the residual sum."""
        return y

    def inner(self, i: int, state: State, op: str, x: Tensor) -> Tensor:
        """After one of a block's six norms and linear maps: ln_1, qkv, out, ln_2, fc, proj."""
        return x

    def readout(self, state: State, head: Head) -> Tensor:
        """Features (batch, n, D): every class token, or the end-of-text token of every caption."""
        if state.eot is None:
            lead = state.x[:, : state.n_lead]
        else:
            lead = state.x[torch.arange(len(state.x), device=state.x.device), state.eot]
        return head(lead.reshape(state.batch, -1, lead.shape[-1]))

    def pool(self, frames: Tensor, mask: Tensor | None) -> Tensor:
        """The video's feature (B, D) from (B, n, D)."""
        return losses.mean_pool(frames, mask)

    def text_inputs(self, batch: Batch) -> dict[str, TextInput]:
        """Caption passes of a training batch by the field of `Outputs` they fill."""
        return {"text": TextInput(batch["text_ids"][:, None], batch["text_mask"][:, None])}

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """The total under `loss` and each of its unweighted terms; here Eq. 4 on Eq. 1."""
        similarity = losses.cosine(out.text, out.video)
        loss = losses.contrastive_loss(similarity, out.logit_scale, self.excluded(batch))
        return {"loss": loss, "loss_vid": loss}

    def excluded(self, batch: Batch) -> Tensor | None:
        """(B, B) pairs left out of the negatives, if the settings ask for that."""
        if not self.settings.mask_same_video:
            return None
        return losses.same_video_pairs(batch["video_index"])
