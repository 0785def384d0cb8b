"""DiscoVLA (CVPR 2025): IVFusion attention, image-level alignment and its distillation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from discovla import losses
from discovla.methods.lora import LoRA
from discovla.methods.parts import Bottleneck
from discovla.models.hooks import (
    TEXT,
    VISION,
    Batch,
    Core,
    Dims,
    Outputs,
    State,
    TextInput,
    tokenwise,
)
from discovla.settings import RunSettings


class DiscoVLA(LoRA):
    """LoRA everywhere; in the top blocks a group's lead token also attends to the whole sample.

    Vision: the lead is the class token, groups are frames, in the top H_V blocks. Text: the lead
    is the end-of-text token, groups are a sample's pseudo captions, in the top H_L blocks; the
    video caption passes the same blocks with LoRA alone, in training and at inference.

    Setting `attention` (Table 6): `image` = Eq. 5 alone; `video` = all tokens of a sample attend to
    all of them (in the text a caption stays causal in itself and sees the others' words in full);
    `average` = mean of Eq. 5 and 6 for the lead; `ivfusion` = Eq. 5-7.

    Text adapters exist only if pseudo captions are read (α or β > 0): nothing else uses them.
    """

    source = "Shen et al., 2025 (DiscoVLA); LunarShen/DsicoVLA at 6ace76f"
    reads_captions = True

    def __init__(self, dims: Dims, settings: RunSettings) -> None:
        super().__init__(dims, settings)
        layers = {
            VISION: settings.vision_layers,
            TEXT: settings.text_layers if settings.needs_captions else 0,
        }
        self.first: dict[str, int] = {}
        """The lowest block of each tower that looks at the whole sample."""
        for tower, top in layers.items():
            depth = dims.tower(tower).layers
            self.first[tower] = depth - top if settings.attention != "image" else depth
        fuses = settings.attention == "ivfusion"
        self.fusion = nn.ModuleDict(
            {
                tower: nn.ModuleDict(
                    {
                        str(i): Bottleneck(
                            dims.tower(tower).width,
                            settings.adapter_rank,
                            settings.adapter_bias,
                            settings.adapter_activation,
                        )
                        for i in range(self.first[tower], dims.tower(tower).layers)
                        if fuses
                    }
                )
                for tower in (VISION, TEXT)
            }
        )

    def gaps(self) -> list[str]:
        """Vision and language where blocks look at the whole sample, alignment by distillation."""
        addressed = {
            "vision": self.first[VISION] < self.dims.vision.layers,
            "language": self.first[TEXT] < self.dims.text.layers,
            "alignment": self.settings.beta > 0,
        }
        return [gap for gap, holds in addressed.items() if holds]

    def needs_every_token(self) -> bool:
        """Where every token attends to the whole sample, all their queries are joined."""
        return self.settings.attention == "video"

    def inert(self) -> list[str]:
        """Text adapters: no pseudo captions are read at inference."""
        return [n for n, _ in self.named_parameters() if n.startswith(f"fusion.{TEXT}.")]

    @tokenwise
    def attend(self, i: int, state: State, q: Tensor, k: Tensor, v: Tensor, core: Core) -> Tensor:
        """Eq. 5-7, or what the setting `attention` puts in their place."""
        whole_sample = state.tower == VISION or state.joint
        if i < self.first[state.tower] or not whole_sample:
            return super().attend(i, state, q, k, v, core)
        if self.settings.attention == "video":
            return core.out(_attend_jointly(state, q, k, v, core))
        y = super().attend(i, state, q, k, v, core)
        lead = (torch.arange(len(y), device=y.device), state.lead())
        image = y[lead]  # c(1), Eq. 5
        video = core.out(_attend_from_lead(state, q[lead], k, v, core))  # c(2), Eq. 6
        if self.settings.attention == "average":
            return y.index_put(lead, (image + video) / 2)
        towers: nn.ModuleDict = self.fusion[state.tower]  # type: ignore[assignment]
        return y.index_put(lead, video + towers[str(i)](image))  # Eq. 7

    def text_inputs(self, batch: Batch) -> dict[str, TextInput]:
        """Pseudo captions too, if a loss reads them."""
        inputs = super().text_inputs(batch)
        if self.settings.needs_captions:
            ids, mask = batch["frame_text_ids"], batch["frame_text_mask"]
            inputs["frame_texts"] = TextInput(ids, mask, joint=True)
        return inputs

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Eq. 14; terms of weight 0 are not computed."""
        terms = super().losses(out, batch)
        if not self.settings.needs_captions:
            return terms
        s, scale, excluded = self.settings, out.logit_scale, self.excluded(batch)
        assert out.frame_texts is not None
        image = losses.image_similarity(
            out.frame_texts, out.frames, scale, s.image_similarity, s.maxima_pooling
        )
        if s.alpha > 0:
            terms["loss_img"] = losses.contrastive_loss(image, scale, excluded)
            terms["loss"] = terms["loss"] + s.alpha * terms["loss_img"]
        if s.beta > 0:
            video = losses.cosine(out.text, out.video)
            terms["loss_kl"] = losses.distillation_loss(
                image, video, scale, s.kl_reduction, s.detach_teacher, excluded
            )
            terms["loss"] = terms["loss"] + s.beta * terms["loss_kl"]
        return terms


def _by_sample(state: State, x: Tensor) -> Tensor:
    """(batch · groups, T, D) or (batch · groups, D) to (batch, all tokens, D)."""
    return x.reshape(state.batch, -1, x.shape[-1])


def _padding_bias(state: State, like: Tensor) -> Tensor | None:
    """(batch, groups · T): -inf on padding of any of the sample's captions; None for frames."""
    if state.key_mask is None:
        return None
    hidden = ~state.key_mask.reshape(state.batch, -1)
    return like.new_zeros(hidden.shape).masked_fill(hidden, float("-inf"))


def _attend_from_lead(state: State, q: Tensor, k: Tensor, v: Tensor, core: Core) -> Tensor:
    """Eq. 6: lead queries (batch · groups, D) over all tokens of their sample, no causality."""
    keys, values = _by_sample(state, k), _by_sample(state, v)
    y = core.mix(_by_sample(state, q), keys, values, bias=_padding_bias(state, k))
    return y.flatten(0, 1)


def _attend_jointly(state: State, q: Tensor, k: Tensor, v: Tensor, core: Core) -> Tensor:
    """Figure 3b: every token of a sample over all its tokens."""
    bias = _padding_bias(state, k)
    if bias is not None:
        length = k.shape[1]
        future = k.new_full((length, length), float("-inf")).triu(1)
        own = torch.block_diag(*[torch.ones_like(future)] * state.groups) > 0
        later = future.repeat(state.groups, state.groups).masked_fill(~own, 0)
        bias = bias[:, None] + later
    q_all, k_all, v_all = (_by_sample(state, t) for t in (q, k, v))
    y = core.mix(q_all, k_all, v_all, bias=bias)
    return y.reshape(k.shape)
