"""A training step of DiscoVLA: exact and fast mode, lever by lever, against the released code.

    python -m benchmarks.train                            ViT-B/32, 2 x 12 frames, one CPU thread
    python -m benchmarks.train --peer ~/DsicoVLA          a clone of LunarShen/DsicoVLA beside it
    python -m benchmarks.train --device cuda --size b16   128 x 12 frames on a GPU
    python -m benchmarks.train --device cuda --size b16 --limit-gb 24 --micro-batch 8 --only micro
    python -m benchmarks.train --device cuda --frames 32 --words 64

Every way computes loss and gradients of the same batch with the same random weights; all run in
turn, in one process. Before a ratio is printed, losses are compared, and gradients as the largest
error of a tensor over its largest value: exact ways against the first that fits the memory, the
others are only reported. float32 is float32 on both sides: convolutions too, which a GPU would
compute in TF32, are not, except in the way that says TF32. Data loading and the optimiser are not
part of it. Peak memory counts what all ways share: both models and the batch, in two forms.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.flops import flops_of
from benchmarks.interleave import Timing, interleave, print_timings
from benchmarks.machine import (
    device_name,
    forget_peak,
    matrix_rate,
    peak_gb,
    print_rows,
    replaced,
    seconds,
    shown_gb,
    using,
    waiting,
)
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


@dataclass(frozen=True)
class Checked:
    """A way that fits the memory, held against the first of them."""

    step: Callable[[], Any]
    errors: tuple[float, float] | None
    """Of loss and gradients; None for the first way itself."""
    peak: float | None
    """Most memory in GB; None where it is not measured."""


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
        with (
            replaced(torch.backends.cuda.matmul, "allow_tf32", True),
            replaced(torch.backends.cudnn, "allow_tf32", True),
        ):
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


def compare(steps: Mapping[str, Way], device: str = "cpu") -> dict[str, Checked]:
    """Print how far every way is from the first, and its peak memory on a GPU.

    Returns:
        The ways that fit the memory.

    Raises:
        SystemExit: an exact way is too far off.
    """
    wanted: Result | None = None
    fitting: dict[str, Checked] = {}
    beyond: list[str] = []
    for name, way in steps.items():
        forget_peak(device)
        try:
            loss, grads = way.step()
        except torch.OutOfMemoryError:
            print(f"  {name:<34} does not fit the memory")
            continue
        peak, errors = peak_gb(device), None
        memory = f"   peak {shown_gb(peak)} GB" if peak else ""
        if wanted is None:
            wanted = (loss.clone(), {n: g.clone() for n, g in grads.items()})
            print(f"against '{name}': loss {loss.item():.6f}{memory}")
        else:
            errors = differences((loss, grads), wanted)
            print(f"  {name:<34} loss {errors[0]:.1e}   gradients {errors[1]:.1e}{memory}")
            if way.exact and (errors[0] > LOSS_LIMIT or errors[1] > GRADIENT_LIMIT):
                beyond.append(name.strip())
        fitting[name] = Checked(way.step, errors, peak)
    if beyond:
        limits = f"{LOSS_LIMIT:g} (loss) or {GRADIENT_LIMIT:g} (gradients)"
        raise SystemExit(f"{', '.join(beyond)}: beyond {limits}; no time is told")
    return fitting


MODES = {"ours": (torch.float32, "fp32"), "ours, bf16": (torch.bfloat16, "bf16")}
"""Ways that compute what a step needs once, and the type of most of their products."""


def print_results(
    timings: list[Timing], checked: Mapping[str, Checked], size: Size, device: str
) -> None:
    """Rates, the share of the device's measured matrix rate, and rows for the README."""
    # All ways of ours have the same products: those of the first mode that fits are counted.
    mode = next((timing.name for timing in timings if timing.name in MODES), None)
    flops = flops_of(checked[mode].step) if mode else 0
    if flops:
        print(f"\n{flops / 1e12:.2f} TFLOP per step")
    rows: dict[str, list[str]] = {}
    for timing in timings:
        spent, of, share = seconds(timing, device), checked[timing.name], ""
        if flops and timing.name in MODES:
            dtype, kind = MODES[timing.name]
            rate = matrix_rate(device, dtype, kernels.linear)
            share = f"{flops / spent / rate:.0%}"
            print(
                f"{timing.name:<12}{size.batch / spent:>9.1f} pairs/s{flops / spent / 1e12:>9.3f} "
                f"TFLOP/s, {share} of {rate / 1e12:.3f} ({kind})"
            )
        rows[timing.name] = [
            *(f"{spent:.3g}", f"{seconds(timings[0], device) / spent:.2f}x"),
            *(f"{size.batch / spent:.1f}", shown_gb(of.peak)),
            *(f"{error:.1e}" for error in of.errors or ()),
            *([""] * (0 if of.errors else 2)),
            share,
        ]
    clock = "s" if device.startswith("cuda") else "CPU s"
    columns = [clock, "ratio", "pairs/s", "peak GB", "loss off by", "gradients off by"]
    print_rows([*columns, "of the matrix rate"], rows)


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
    with using(args.device):
        if on_gpu and args.limit_gb:
            total = torch.cuda.get_device_properties().total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, args.limit_gb * 1e9 / total))
        measure(args, size)


def measure(args: argparse.Namespace, size: Size) -> None:
    """Compare, time and print."""
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
    checked = compare(steps, args.device)
    if not checked:
        raise SystemExit("no way fits the memory: give a smaller --batch or --micro-batch")
    timings = interleave(
        {n: way.step for n, way in checked.items()}, rounds=args.rounds, sync=waiting(args.device)
    )
    frames = f"{size.batch} x {size.frames} frames, {size.words} words"
    clock = "wall" if args.device.startswith("cuda") else "cpu"
    title = f"{args.size}, {frames}, {args.threads} threads, ms per step"
    print_timings(title, timings, clock=clock)
    print_results(timings, checked, size, args.device)
    limit = f", at most {args.limit_gb:g} GB" if args.limit_gb else ""
    machine = f"{device_name(args.device)}{limit}, torch {torch.__version__}"
    print(f"\n{args.size}, {frames}; {machine}; best of {args.rounds}")


if __name__ == "__main__":
    main()
