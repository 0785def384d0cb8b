"""The model that is trained and evaluated: a CLIP backbone and a method on its hook points."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from discovla.errors import UserError
from discovla.methods import method_class
from discovla.models.backbone import Backbone
from discovla.models.encoder import encode_frames, encode_texts
from discovla.models.hooks import Batch, Method, Outputs, TextInput
from discovla.settings import RunSettings

MAX_LOGIT_SCALE = math.log(100)


class VideoFeatures(NamedTuple):
    """Features of videos in float32, not normalised: frames (B, F, D), pooled (B, D)."""

    frames: Tensor
    pooled: Tensor


class Retriever(nn.Module):
    """Text and video encoders with a method's changes; only the method's choice is trainable.

    Features leave in float32 even under autocast, so that pooling and losses are exact.
    """

    def __init__(self, backbone: Backbone, method: Method) -> None:
        super().__init__()
        self.clip = backbone.clip
        self.method = method
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (backbone.mean, backbone.std))
        self.register_buffer("pixel_mean", mean, persistent=False)
        self.register_buffer("pixel_std", std, persistent=False)
        self.clip.requires_grad_(False)
        self.recompute = False
        """Whether the backward pass computes every block again instead of keeping its inside."""
        self.lr_factors: dict[str, float] = {}
        """Factor on the learning rate of every trained tensor, by name."""
        for name, factor in method.trainable(self.clip).items():
            self.clip.get_parameter(name).requires_grad_(True)
            self.lr_factors[f"clip.{name}"] = factor
        for name, _ in method.named_parameters(prefix="method"):
            self.lr_factors[name] = 1.0

    @property
    def logit_scale(self) -> Tensor:
        """exp of CLIP's logit_scale: 1/τ."""
        return self.clip.logit_scale.exp()

    def encode_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Features (B, D) of video captions, ids and mask (B, L)."""
        return self._encode_texts(TextInput(ids[:, None], mask[:, None]))[:, 0]

    def encode_frame_texts(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Features (B, F, D) of pseudo captions, ids and mask (B, F, L)."""
        return self._encode_texts(TextInput(ids, mask, joint=True))

    def _encode_texts(self, texts: TextInput) -> Tensor:
        return encode_texts(self.clip, self.method, texts, self.recompute).float()

    def encode_video(self, video: Tensor, mask: Tensor | None = None) -> VideoFeatures:
        """Features of videos.

        Args:
            video: (B, F, 3, H, W), uint8, or float of normalised pixels.
            mask: (B, F), nonzero where a frame counts in the mean.
        """
        if video.dtype == torch.uint8:
            video = video.float().div_(255).sub_(self.pixel_mean).div_(self.pixel_std)
        frames = encode_frames(self.clip, self.method, video, mask, self.recompute).float()
        return VideoFeatures(frames, self.method.pool(frames, mask))

    def forward(self, batch: Batch) -> Outputs:
        """Encode a training batch; pseudo captions only if the method reads them."""
        texts = {
            name: self._encode_texts(text) for name, text in self.method.text_inputs(batch).items()
        }
        video = self.encode_video(batch["video"], batch["video_mask"])
        return Outputs(
            text=texts["text"][:, 0],
            frames=video.frames,
            video=video.pooled,
            frame_texts=texts.get("frame_texts"),
            logit_scale=self.logit_scale,
        )

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The total under `loss` and its unweighted terms: loss_vid, loss_img, loss_kl."""
        return self.loss_of(self(batch), batch)

    def loss_of(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """The losses of given features, outside of any autocast."""
        with torch.autocast(out.text.device.type, enabled=False):
            return self.method.losses(out, batch)

    def halve_frozen(self) -> None:
        """Keep frozen matrices in bfloat16, for passes under autocast alone.

        Autocast casts them for every use; cast once, they give the same bits in half the memory.
        Norms, embeddings and whatever is trained stay in float32.
        """
        linear = (nn.Linear, nn.Conv2d, nn.MultiheadAttention)
        owners = [module for module in self.clip.modules() if isinstance(module, linear)]
        matrices = [p for module in owners for p in module.parameters(recurse=False)]
        for matrix in [*matrices, self.clip.visual.proj, self.clip.text_projection]:
            if not matrix.requires_grad:
                matrix.data = matrix.data.bfloat16()

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Keep a trained temperature at or below 100, as CLIP does after each step."""
        if self.clip.logit_scale.requires_grad:
            self.clip.logit_scale.clamp_(max=MAX_LOGIT_SCALE)

    def trainable_state(self) -> dict[str, Tensor]:
        """Copies of the trained tensors by name, float32 on the CPU."""
        return {
            name: tensor.detach().to("cpu", torch.float32, copy=True).contiguous()
            for name, tensor in self.named_parameters()
            if tensor.requires_grad
        }

    def load_trainable_state(self, state: Mapping[str, Tensor], where: str = "adapter") -> None:
        """Copy trained tensors back; names and shapes must be exactly those of this model.

        Raises:
            UserError: naming `where` and what does not fit.
        """
        own = {n: p for n, p in self.named_parameters() if p.requires_grad}
        wrong = sorted(own.keys() ^ state.keys()) or [
            n for n in own if own[n].shape != state[n].shape
        ]
        if wrong:
            raise UserError(
                f"{where}: {len(wrong)} trained tensors are missing, unknown or of another shape: "
                f"{', '.join(wrong[:5])}. It belongs to other settings; train this run again."
            )
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(state[name])


def build_retriever(settings: RunSettings, backbone: Backbone, seed: int = 0) -> Retriever:
    """The model of a run before training.

    Args:
        settings: of the run.
        backbone: CLIP; its parameters become part of the model and are frozen or trained in place.
        seed: every new tensor depends on (seed, its name) only. Shapes only on the meta device.

    Raises:
        UserError: an unknown method, or settings that it or the backbone cannot follow.
    """
    kind = method_class(settings.method)
    if settings.needs_captions and not kind.reads_captions:
        raise UserError(
            f"settings alpha = {settings.alpha:g}, beta = {settings.beta:g}: method "
            f"{settings.method} reads no pseudo captions; set both to 0, or method to discovla"
        )
    settings.options.check(settings, backbone.dims)
    method = kind(backbone.dims, settings)
    device = backbone.clip.logit_scale.device
    if device.type == "meta":
        method.to("meta")
    else:
        method.initialise(seed)
        method.to(device)
    return Retriever(backbone, method)
