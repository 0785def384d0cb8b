"""A training step of DiscoVLA: in parts, in half precision, and against the released code.

    python -m benchmarks.train                            ViT-B/32, 2 x 12 frames, one CPU thread
    python -m benchmarks.train --peer ~/DsicoVLA          a clone of LunarShen/DsicoVLA beside it
    python -m benchmarks.train --size demo --batch 32

Every way computes loss and gradients of the same batch with the same random weights; all run in
turn, in one process. Before a ratio is printed, losses are compared, and gradients as the largest
error of a tensor over its largest value. Data loading and the optimiser are not part of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.interleave import interleave, print_timings
from benchmarks.methods import REAL, SMALL, Size, make_batch
from benchmarks.released import Released
from discovla.experiments import Experiments
from discovla.files import read_json
from discovla.models import encoder
from discovla.models.backbone import build_backbone
from discovla.models.retriever import Retriever, build_retriever
from discovla.settings import RunSettings
from discovla.training.gradients import backward

LOSS_LIMIT, GRADIENT_LIMIT = 1e-5, 1e-4
"""Relative errors allowed in fp32; bf16 is only reported."""
HALF = "bf16"
DEMO_CLIP = Path(__file__).parents[1] / "discovla/demo/weights/clip/open_clip_config.json"

Result = tuple[Tensor, dict[str, Tensor]]


def sizes() -> dict[str, Size]:
    """CLIPs and their usual batches on a CPU."""
    demo = read_json(DEMO_CLIP)["model_cfg"]
    return {
        "demo": Size(demo, 32, 8, 24),
        "small": Size(SMALL, 8, 12, 32),
        "b32": Size(REAL, 2, 12, 32),
    }


def build(size: Size, settings: RunSettings, device: str) -> Retriever:
    """DiscoVLA with random weights, none of them zero."""
    backbone = build_backbone(size.config)
    model = build_retriever(settings, backbone)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.method.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return model.to(device).train()


def ours(
    model: Retriever, batch: Mapping[str, Tensor], dtype: str = "fp32", micro: int | None = None
) -> Result:
    """One step of ours."""
    model.zero_grad(set_to_none=True)
    terms, _ = backward(model, batch, dtype, micro_batch=micro)
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return terms["loss"], grads


@contextmanager
def all_tokens() -> Iterator[None]:
    """The last block for every token, as before it was cut."""
    kept = encoder.lead_suffices
    encoder.lead_suffices = lambda method: False
    try:
        yield
    finally:
        encoder.lead_suffices = kept


def ways(
    model: Retriever, batch: Mapping[str, Tensor], micro: int, peer: Released | None
) -> dict[str, Callable[[], Result]]:
    """Name → one step; the first is what the others are compared with."""

    def whole_block() -> Result:
        with all_tokens():
            return ours(model, batch)

    found: dict[str, Callable[[], Result]] = {}
    if peer is not None:
        mean, std = (b.double() for b in (model.pixel_mean, model.pixel_std))
        pixels = {**batch, "pixels": (batch["video"].double() / 255 - mean) / std}
        found["released, as shipped"] = lambda: peer.step(pixels, anomaly=True)
        found["released, no anomaly detection"] = lambda: peer.step(pixels, anomaly=False)
    return {
        **found,
        "ours, last block for all tokens": whole_block,
        "ours": lambda: ours(model, batch),
        f"ours, micro-batches of {micro}": lambda: ours(model, batch, micro=micro),
        f"ours, {HALF}": lambda: ours(model, batch, HALF),
    }


def differences(found: Result, wanted: Result) -> tuple[float, float]:
    """Relative error of the loss, and the largest of a gradient over its tensor's maximum."""
    loss = abs(found[0].item() / wanted[0].item() - 1)
    grads = [
        (found[1][n] - g).abs().max().item() / max(g.abs().max().item(), 1e-12)
        for n, g in wanted[1].items()
    ]
    return loss, max(grads)


def compare(steps: Mapping[str, Callable[[], Result]]) -> None:
    """Print how far every way is from the first; raise where fp32 is too far."""
    (first, reference), *others = steps.items()
    loss, grads = reference()
    wanted = (loss.clone(), {n: g.clone() for n, g in grads.items()})
    print(f"against '{first}': loss {loss.item():.6f}")
    for name, way in others:
        errors = differences(way(), wanted)
        print(f"  {name:<34} loss {errors[0]:.1e}   gradients {errors[1]:.1e}")
        if HALF not in name and (errors[0] > LOSS_LIMIT or errors[1] > GRADIENT_LIMIT):
            raise SystemExit(f"{name}: beyond {LOSS_LIMIT:g} (loss) or {GRADIENT_LIMIT:g}")


def main() -> None:
    """Compare, then time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=("b32", "small", "demo"), default="b32")
    parser.add_argument("--batch", type=int, help="samples; default by size")
    parser.add_argument("--frames", type=int)
    parser.add_argument("--micro-batch", type=int, help="default: half of the batch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--peer", type=Path, help="a clone of the released code; b32 or small")
    parser.add_argument("--only", nargs="+", default=[], help="parts of names of ways to run")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    size = sizes()[args.size]
    size = Size(size.config, args.batch or size.batch, args.frames or size.frames, size.words)
    changes: dict[str, Any] = {"frames": size.frames}
    if args.size == "demo":
        changes |= {"vision_layers": 2, "text_layers": 1}
    settings = Experiments.load().resolve("msrvtt", "discovla", "vit-b32", changes).settings
    model = build(size, settings, args.device)
    batch = make_batch(size, args.device)
    peer = Released(args.peer, model, settings) if args.peer else None
    micro = args.micro_batch or max(1, size.batch // 2)
    steps = ways(model, batch, micro, peer)
    if args.only:
        steps = {n: s for n, s in steps.items() if any(part in n for part in args.only)}
    compare(steps)
    sync = torch.cuda.synchronize if args.device.startswith("cuda") else (lambda: None)
    timings = interleave(steps, rounds=args.rounds, sync=sync)
    frames = f"{size.batch} x {size.frames} frames"
    print_timings(f"{args.size}, {frames}, {args.threads} threads, ms per step", timings)
    print(f"torch {torch.__version__}, {args.device}")


if __name__ == "__main__":
    main()
