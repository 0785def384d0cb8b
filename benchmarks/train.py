"""A training step of DiscoVLA: exact and fast mode, lever by lever, against the released code.

    python -m benchmarks.train                            ViT-B/32, 2 x 12 frames, one CPU thread
    python -m benchmarks.train --peer ~/DsicoVLA          a clone of LunarShen/DsicoVLA beside it
    python -m benchmarks.train --device cuda --size b16   128 x 12 frames on a GPU
    python -m benchmarks.train --device cuda --size b16 --limit-gb 24 --micro-batch 8 --only micro
    python -m benchmarks.train --device cuda --frames 32 --words 64

Every way computes loss and gradients of the same batch with the same random weights; all run in
turn, in one process. Before a ratio is printed, losses are compared, and gradients as the largest
error of a tensor over its largest value: exact ways against the first that fits the memory, the
others are only reported. Data loading and the optimiser are not part of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.flops import flops_of
from benchmarks.interleave import Timing, interleave, print_timings
from benchmarks.methods import REAL, SMALL, Size, make_batch
from benchmarks.released import Released
from discovla.experiments import Experiments
from discovla.models import encoder, kernels
from discovla.models.backbone import build_backbone
from discovla.models.retriever import Retriever, build_retriever
from discovla.settings import RunSettings
from discovla.storage.files import read_json
from discovla.training.gradients import backward

LOSS_LIMIT, GRADIENT_LIMIT = 1e-5, 1e-4
"""Relative errors allowed to exact ways; those of the others are only reported."""
GPU_BATCH = 128
DEMO_CLIP = Path(__file__).parents[1] / "discovla/demo/weights/clip/open_clip_config.json"

Result = tuple[Tensor, dict[str, Tensor]]


@dataclass(frozen=True)
class Way:
    """One way to do it, and whether it must agree in full float32."""

    step: Callable[[], Any]
    exact: bool = True


def sizes() -> dict[str, Size]:
    """CLIPs and their usual batches on a CPU."""
    demo = read_json(DEMO_CLIP)["model_cfg"]
    b16 = {**REAL, "vision_cfg": {**REAL["vision_cfg"], "patch_size": 16}}
    return {
        "demo": Size(demo, 32, 8, 24),
        "small": Size(SMALL, 8, 12, 32),
        "b32": Size(REAL, 2, 12, 32),
        "b16": Size(b16, 2, 12, 32),
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
    model: Retriever,
    batch: Mapping[str, Tensor],
    dtype: str = "fp32",
    micro: int | None = None,
    recompute: bool = False,
) -> Result:
    """One step of ours."""
    model.zero_grad(set_to_none=True)
    model.recompute = recompute
    terms, _ = backward(model, batch, dtype, micro_batch=micro)
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return terms["loss"], grads


@contextmanager
def replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """A name of a module means something else while the block runs."""
    kept = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, kept)


LEVERS: dict[str, tuple[Any, str, Any]] = {
    "last block for all tokens": (encoder, "lead_suffices", lambda method: False),
    "torch's matrix product": (kernels, "prefers_onednn", lambda: False),
    "open_clip's activation": (kernels, "activation", lambda module, x: module(x)),
}
"""What is left out → how: each of the exact levers switched off by itself."""


def released_ways(peer: Released, model: Retriever, batch: Mapping[str, Tensor]) -> dict[str, Way]:
    """As shipped, and without what only slows it down."""
    mean, std = (b.double() for b in (model.pixel_mean, model.pixel_std))
    pixels = {**batch, "pixels": (batch["video"].double() / 255 - mean) / std}

    def with_tf32() -> Result:
        with replaced(torch.backends.cuda.matmul, "allow_tf32", True):
            return peer.step(pixels, anomaly=False)

    found = {
        "released, as shipped": Way(lambda: peer.step(pixels, anomaly=True)),
        "released, no anomaly detection": Way(lambda: peer.step(pixels, anomaly=False)),
    }
    if batch["video"].is_cuda:
        found["released, no anomaly, TF32"] = Way(with_tf32, exact=False)
    return found


def ways(
    model: Retriever,
    half: Retriever,
    batch: Mapping[str, Tensor],
    micro: int,
    peer: Released | None = None,
) -> dict[str, Way]:
    """Name → one step.

    Args:
        model: in float32.
        half: the same with its frozen matrices in half precision.
        batch: on their device.
        micro: samples of a micro-batch.
        peer: the released code with the same weights.
    """
    found = released_ways(peer, model, batch) if peer else {}

    def without(lever: str) -> Callable[[], Result]:
        def step() -> Result:
            with replaced(*LEVERS[lever]):
                return ours(model, batch)

        return step

    found["ours"] = Way(lambda: ours(model, batch))
    for lever in LEVERS:
        if lever != "torch's matrix product" or kernels.prefers_onednn():
            found[f"  {lever}"] = Way(without(lever))
    found[f"  micro-batches of {micro}"] = Way(lambda: ours(model, batch, micro=micro))
    found["  blocks computed again"] = Way(lambda: ours(model, batch, recompute=True))
    halves: dict[str, dict[str, Any]] = {
        "ours, bf16": {},
        f"  bf16, micro-batches of {micro}": {"micro": micro},
        "  bf16, blocks computed again": {"recompute": True},
    }
    for name, options in halves.items():
        step = lambda options=options: ours(half, batch, "bf16", **options)  # noqa: E731
        found[name] = Way(step, exact=False)
    return found


def differences(found: Result, wanted: Result) -> tuple[float, float]:
    """Relative error of the loss, and the largest of a gradient over its tensor's maximum."""
    loss = abs(found[0].item() / wanted[0].item() - 1)
    grads = [
        (found[1][n] - g).abs().max().item() / max(g.abs().max().item(), 1e-12)
        for n, g in wanted[1].items()
    ]
    return loss, max(grads)


def compare(steps: Mapping[str, Way]) -> dict[str, Way]:
    """Print how far every way is from the first, and its peak memory on a GPU.

    Returns:
        The ways that fit the memory.

    Raises:
        SystemExit: an exact way is too far off.
    """
    wanted: Result | None = None
    fitting: dict[str, Way] = {}
    on_gpu = torch.cuda.is_initialized()
    for name, way in steps.items():
        if on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            loss, grads = way.step()
        except torch.OutOfMemoryError:
            print(f"  {name:<34} does not fit the memory")
            continue
        fitting[name] = way
        peak = f"   peak {torch.cuda.max_memory_allocated() / 1e9:.1f} GB" if on_gpu else ""
        if wanted is None:
            wanted = (loss.clone(), {n: g.clone() for n, g in grads.items()})
            print(f"against '{name}': loss {loss.item():.6f}{peak}")
            continue
        errors = differences((loss, grads), wanted)
        print(f"  {name:<34} loss {errors[0]:.1e}   gradients {errors[1]:.1e}{peak}")
        if way.exact and (errors[0] > LOSS_LIMIT or errors[1] > GRADIENT_LIMIT):
            raise SystemExit(f"{name}: beyond {LOSS_LIMIT:g} (loss) or {GRADIENT_LIMIT:g}")
    return fitting


def matrix_rates(device: str) -> dict[str, float]:
    """FLOP per second of one large product, by type of the arithmetic; CPU time on a CPU."""
    edge = 8192 if device.startswith("cuda") else 1024
    flops = 2 * edge**3
    made = torch.randn(2, edge, edge, device=device)
    kinds = {"fp32": made.unbind(), "bf16": made.bfloat16().unbind()}
    steps: dict[str, Callable[[], Tensor]] = {
        kind: lambda x=x, y=y: kernels.linear(x, y)  # type: ignore[misc]
        for kind, (x, y) in kinds.items()
    }
    timings = interleave(steps, rounds=5, sync=waiting(device))
    return {timing.name: flops / seconds(timing, device) for timing in timings}


def seconds(timing: Timing, device: str) -> float:
    """What counts: the clock where a GPU works, else the CPU time."""
    return timing.wall if device.startswith("cuda") else timing.cpu


def waiting(device: str) -> Callable[[], None]:
    """What waits for the device."""
    return torch.cuda.synchronize if device.startswith("cuda") else (lambda: None)


def print_shares(timings: list[Timing], flops: int, size: Size, device: str) -> None:
    """How much of the device's measured matrix rate the two modes reach, on one step's FLOPs."""
    rates = matrix_rates(device)
    print(f"\n{flops / 1e12:.2f} TFLOP per step")
    for timing in timings:
        for name, kind in (("ours", "fp32"), ("ours, bf16", "bf16")):
            if timing.name == name:
                reached = flops / seconds(timing, device)
                print(
                    f"{name:<12}{size.batch / timing.wall:>9.1f} pairs/s{reached / 1e12:>9.3f} "
                    f"TFLOP/s, {reached / rates[kind]:.0%} of {rates[kind] / 1e12:.3f} ({kind})"
                )


def main(arguments: list[str] | None = None) -> None:
    """Compare, then time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=sorted(sizes()), default="b32")
    parser.add_argument("--batch", type=int, help=f"samples; by size, {GPU_BATCH} on a GPU")
    parser.add_argument("--frames", type=int)
    parser.add_argument("--words", type=int, help="tokens of the longest captions")
    parser.add_argument("--micro-batch", type=int, help="default: half of the batch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--limit-gb", type=float, help="of GPU memory that may be used")
    parser.add_argument("--peer", type=Path, help="a clone of the released code; b32 or b16")
    parser.add_argument("--only", nargs="+", default=[], help="parts of names of ways to run")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    on_gpu = args.device.startswith("cuda")
    size = sizes()[args.size]
    size = Size(
        size.config,
        args.batch or (GPU_BATCH if on_gpu else size.batch),
        args.frames or size.frames,
        args.words or size.words,
    )
    if on_gpu and args.limit_gb:
        total = torch.cuda.get_device_properties(args.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, args.limit_gb * 1e9 / total))
    changes: dict[str, Any] = {"frames": size.frames, "words": size.words}
    if args.size == "demo":
        changes |= {"vision_layers": 2, "text_layers": 1}
    name = "vit-b16" if args.size == "b16" else "vit-b32"
    settings = Experiments.load().resolve("msrvtt", "discovla", name, changes).settings
    model, half = (build(size, settings, args.device) for _ in range(2))
    half.halve_frozen()
    batch = make_batch(size, args.device)
    peer = Released(args.peer, model, settings) if args.peer else None
    steps = ways(model, half, batch, args.micro_batch or max(1, size.batch // 2), peer)
    if args.only:
        steps = {n: s for n, s in steps.items() if any(part in n for part in args.only)}
    steps = compare(steps)
    timings = interleave(
        {n: way.step for n, way in steps.items()}, rounds=args.rounds, sync=waiting(args.device)
    )
    frames = f"{size.batch} x {size.frames} frames, {size.words} words"
    print_timings(f"{args.size}, {frames}, {args.threads} threads, ms per step", timings)
    if any(timing.name.startswith("ours") for timing in timings):
        print_shares(timings, flops_of(lambda: ours(model, batch)), size, args.device)
    print(f"torch {torch.__version__}, {args.device}, {device_name(args.device)}")


def device_name(device: str) -> str:
    """The GPU's name, or what vectors torch sees on the CPU."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return str(torch.backends.cpu.get_cpu_capability())


if __name__ == "__main__":
    main()
