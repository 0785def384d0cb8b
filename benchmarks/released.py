"""The released code of DiscoVLA, from a clone that the user provides, as a way to take a step."""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from discovla.errors import UserError
from discovla.models.retriever import Retriever
from discovla.parity.discovla import _trained_names
from discovla.settings import RunSettings

_NEEDED = "tvr/models/modeling.py"


class Released:
    """Its model with the very weights of one of ours.

    Args:
        clone: folder of the clone.
        model: our DiscoVLA; weights are copied from it.
        settings: of our model.
    """

    def __init__(self, clone: Path, model: Retriever, settings: RunSettings) -> None:
        if not (clone / _NEEDED).is_file():
            raise UserError(f"--peer {clone}: no {_NEEDED}; give a clone of LunarShen/DsicoVLA")
        sys.path.insert(0, str(clone))
        try:
            modeling = importlib.import_module("tvr.models.modeling")
        except ImportError as error:
            raise UserError(
                f"--peer {clone}: {error}; install what is absent, timm or einops"
            ) from None
        device = model.pixel_mean.device
        if not dist.is_initialized():  # its forward pass has a barrier
            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
        encoder = f"ViT-B/{model.method.dims.patch_size}"
        with tempfile.TemporaryDirectory() as folder:
            weights = {
                name: tensor.float().cpu() for name, tensor in model.clip.state_dict().items()
            }
            torch.save(weights, Path(folder) / f"{encoder.replace('/', '-')}.pt")
            config = SimpleNamespace(
                **{"base_encoder": encoder, "pretrained_path": folder},
                **{"lora_adapter_dim": settings.lora_rank, "H_V": settings.vision_layers},
                **{"alpha": settings.alpha, "beta": settings.beta, "H_L": settings.text_layers},
                **{"world_size": 1, "local_rank": 0},
            )
            self.model: Any = modeling.VTRModel(config).to(device)
        self.pairs = self._copy_trained(model)

    def _copy_trained(self, ours: Retriever) -> dict[str, Any]:
        """Its trained parameters by our names, with our values."""
        own = dict(self.model.named_parameters())
        official = {id(parameter): name for name, parameter in _trained_names(ours)}
        found = {}
        with torch.no_grad():
            for name, parameter in ours.named_parameters():
                if parameter.requires_grad:
                    found[name] = own[official[id(parameter)]]
                    found[name].copy_(parameter)
        for name, parameter in own.items():
            parameter.requires_grad_("TVPt" in name)
        return found

    def step(self, batch: Mapping[str, Tensor], anomaly: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and gradients by our names; `batch["pixels"]` are normalised float64, as it loads.

        `anomaly`: with the detection around the backward pass that it is released with.
        """
        self.model.zero_grad(set_to_none=True)
        masks = {n: batch[n].long() for n in ("text_mask", "frame_text_mask", "video_mask")}
        loss, *_ = self.model(
            *(batch["text_ids"], masks["text_mask"]),
            *(batch["frame_text_ids"], masks["frame_text_mask"]),
            *(batch["pixels"], masks["video_mask"]),
        )
        with torch.autograd.set_detect_anomaly(anomaly):
            loss.backward()
        return loss.detach(), {name: p.grad for name, p in self.pairs.items()}

    @torch.no_grad()
    def encode_video(self, pixels: Tensor, mask: Tensor) -> Tensor:
        """Features (B, D) of videos, as its evaluation makes them."""
        features: Tensor = self.model.get_video_feat(pixels.flatten(0, 1), mask.long())
        return features
