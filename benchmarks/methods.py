"""What a training step of every method costs: time, memory, FLOPs, on one batch.

    python -m benchmarks.methods                    a small CLIP on the CPU
    python -m benchmarks.methods --size real        ViT-B/32, 128 x 12 frames; wants a GPU

Rows are the methods of Table 1 and the attention kinds of Table 6, all over one CLIP with random
weights and one batch. Methods that start at plain CLIP are checked to give its features.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.flops import flops_of
from benchmarks.interleave import cpu_seconds
from benchmarks.machine import using
from discovla.experiments import Experiments
from discovla.models.backbone import Backbone, build_backbone
from discovla.models.retriever import Retriever, build_retriever
from discovla.settings import RunSettings

SMALL: dict[str, Any] = {
    "embed_dim": 64,
    "quick_gelu": True,
    "vision_cfg": {"layers": 12, "width": 128, "patch_size": 16, "image_size": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 512, "width": 128, "heads": 2, "layers": 12},
}
REAL: dict[str, Any] = {
    "embed_dim": 512,
    "quick_gelu": True,
    "vision_cfg": {"layers": 12, "width": 768, "patch_size": 32, "image_size": 224},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
}
START_AT_CLIP = ("full", "lora", "adapter", "rap", "mv-adapter")


@dataclass(frozen=True)
class Size:
    """One CLIP and one batch."""

    config: Mapping[str, Any]
    batch: int
    frames: int
    words: int


SIZES = {"small": Size(SMALL, 8, 12, 32), "real": Size(REAL, 128, 12, 32)}


def rows(size: Size) -> dict[str, RunSettings]:
    """Name → settings of the methods of Table 1 and the attention kinds of Table 6."""
    experiments = Experiments.load()
    found: dict[str, RunSettings] = {}
    named = [("table1", row) for row in experiments.tables["table1"]["rows"]]
    named += [("table6", row) for row in experiments.tables["table6"]["rows"]]
    for table, row in named:
        if row.get("recipe") or "datasets" in row:
            continue
        name = row["row"].removesuffix("-b32").removesuffix("-b16")
        name = f"attention: {name}" if table == "table6" else name
        run = experiments.resolve(
            "msrvtt", row["method"], "vit-b32", row.get("set", {}), where=name
        )
        if name not in found or row.get("backbone") == "vit-b32":
            found[name] = run.settings
    return found


def make_batch(size: Size, device: str) -> dict[str, Tensor]:
    """Random pixels, and captions of random lengths."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = size.config["text_cfg"]["vocab_size"]

    def texts(*shape: int) -> tuple[Tensor, Tensor]:
        ids = torch.randint(1, vocabulary - 2, (*shape, size.words), generator=generator)
        ends = torch.randint(5, size.words, shape, generator=generator)
        place = torch.arange(size.words)
        ids[..., 0] = vocabulary - 2
        ids = torch.where(place == ends[..., None], vocabulary - 1, ids)
        mask = place <= ends[..., None]
        return ids * mask, mask

    ids, mask = texts(size.batch)
    frame_ids, frame_mask = texts(size.batch, size.frames)
    side = size.config["vision_cfg"]["image_size"]
    video = torch.randint(
        0, 256, (size.batch, size.frames, 3, side, side), generator=generator, dtype=torch.uint8
    )
    batch = {
        "text_ids": ids,
        "text_mask": mask,
        "frame_text_ids": frame_ids,
        "frame_text_mask": frame_mask,
        "video": video,
        "video_mask": torch.ones(size.batch, size.frames, dtype=torch.bool),
        "video_index": torch.arange(size.batch),
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}


def step(model: Retriever, batch: Mapping[str, Tensor], bf16: bool) -> None:
    """Losses and gradients of one batch."""
    device = batch["video"].device.type
    with torch.autocast(device, torch.bfloat16, enabled=bf16):
        out = model(batch)
    model.loss_of(out, batch)["loss"].backward()
    model.zero_grad(set_to_none=True)


class SavedBytes:
    """Bytes that autograd keeps for the backward pass, every storage counted once."""

    def __init__(self) -> None:
        self.storages: dict[int, int] = {}

    def note(self, tensor: Tensor) -> Tensor:
        """Count what is kept."""
        storage = tensor.untyped_storage()
        self.storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    def measure(self, model: Retriever, batch: Mapping[str, Tensor]) -> int:
        """Of one forward pass, parameters left out."""
        known = {p.untyped_storage().data_ptr() for p in model.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(self.note, lambda t: t):
            out = model.loss(batch)
        del out
        return sum(size for place, size in self.storages.items() if place not in known)


@torch.no_grad()
def check_starts(models: Mapping[str, Retriever], plain: Retriever, batch: Any) -> None:
    """Methods that start at plain CLIP must give its features."""
    few = {name: tensor[:2] for name, tensor in batch.items()}
    expected = plain(few)
    for name in START_AT_CLIP:
        found = models[name](few)
        for side in ("text", "video"):
            torch.testing.assert_close(
                getattr(found, side), getattr(expected, side), rtol=1e-3, atol=1e-4
            )


def measure(models: Mapping[str, Retriever], batch: Any, rounds: int, bf16: bool) -> None:
    """Print one line per model; time is the best of interleaved rounds."""
    cuda = batch["video"].is_cuda
    facts: dict[str, dict[str, float]] = {name: {} for name in models}
    for name, model in models.items():
        facts[name]["flop"] = flops_of(partial(step, model, batch, bf16))
        facts[name]["trained"] = sum(p.numel() for p in model.parameters() if p.requires_grad)
        if cuda:
            torch.cuda.reset_peak_memory_stats()
            step(model, batch, bf16)
            facts[name]["bytes"] = torch.cuda.max_memory_allocated()
        else:
            facts[name]["bytes"] = SavedBytes().measure(model, batch)
    for _ in range(rounds):
        for name, model in models.items():
            seconds = timed_on_gpu(model, batch, bf16) if cuda else timed_on_cpu(model, batch, bf16)
            facts[name]["seconds"] = min(seconds, facts[name].get("seconds", seconds))
    reference = facts["lora"]["seconds"]
    print(f"{'':<26}{'trained':>13}{'ms/step':>10}{'/ LoRA':>8}{'GFLOP':>10}{'MB':>9}")
    for name, fact in facts.items():
        print(
            f"{name:<26}{fact['trained']:>13,.0f}{1e3 * fact['seconds']:>10.1f}"
            f"{fact['seconds'] / reference:>8.2f}{fact['flop'] / 1e9:>10.1f}"
            f"{fact['bytes'] / 2**20:>9.0f}"
        )
    kind = "peak on the device" if cuda else "kept for the backward pass"
    print(f"ms: {'device events' if cuda else 'CPU time'}; MB: {kind}; FLOP: forward and backward")


def timed_on_cpu(model: Retriever, batch: Any, bf16: bool) -> float:
    """CPU seconds of a step."""
    start = cpu_seconds()
    step(model, batch, bf16)
    return cpu_seconds() - start


def timed_on_gpu(model: Retriever, batch: Any, bf16: bool) -> float:
    """Device seconds of a step, by events."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    step(model, batch, bf16)
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3


def build(settings: RunSettings, backbone_of: Any, device: str) -> Retriever:
    """A model at its start, over a CLIP of its own."""
    backbone: Backbone = backbone_of()
    backbone.clip.to(device)
    return build_retriever(settings, backbone).train()


def main() -> None:
    """Measure all rows at one size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, help="samples, where the device has no room")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bf16", action="store_true", help="encoders under autocast")
    parser.add_argument("--only", nargs="+", help="rows to measure, lora among them")
    arguments = parser.parse_args()
    size = SIZES[arguments.size]
    if arguments.batch:
        size = Size(size.config, arguments.batch, size.frames, size.words)
    if arguments.device == "cpu":
        torch.set_num_threads(1)
    with using(arguments.device):
        compare(arguments, size)


def compare(arguments: argparse.Namespace, size: Size) -> None:
    """Build all rows, check those that start at plain CLIP, and measure."""
    batch = make_batch(size, arguments.device)
    start = time.perf_counter()
    settings = rows(size)
    wanted = {n: s for n, s in settings.items() if not arguments.only or n in arguments.only}

    def backbone_of() -> Backbone:
        return build_backbone(size.config, name="random")

    models = {name: build(value, backbone_of, arguments.device) for name, value in wanted.items()}
    if not arguments.only:
        run = Experiments.load().resolve("msrvtt", "zero_shot", "vit-b32", {})
        check_starts(models, build(run.settings, backbone_of, arguments.device), batch)
        print(f"equal to plain CLIP at the start: {', '.join(START_AT_CLIP)}")
    frames = size.batch * size.frames
    precision = "bf16 autocast" if arguments.bf16 else "fp32"
    print(f"{size.batch} samples, {frames} frames, {precision}, {arguments.device}")
    measure(models, batch, arguments.rounds, arguments.bf16)
    print(f"torch {torch.__version__}, {platform.machine()}, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
