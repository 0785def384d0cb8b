"""Encoding videos and captions: LoRA merged and not, in half precision, against the released code.

    python -m benchmarks.infer [--peer ~/DsicoVLA] [--size b32|b16|demo] [--device cuda]

Every way encodes the same videos with the same random weights. Features are compared first, by
the smallest cosine and the largest difference of normalised features; fp32 must agree.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.interleave import interleave, print_timings
from benchmarks.machine import device_name, print_rows, replaced, seconds, using, waiting
from benchmarks.methods import Size, make_batch
from benchmarks.released import Released
from benchmarks.train import LEVERS, Way, build, sizes
from discovla.experiments import Experiments
from discovla.models.merging import merge_lora
from discovla.models.retriever import Retriever

LIMIT = 1e-5
"""Largest difference of normalised features between exact ways."""


def ways(
    models: Mapping[str, Retriever], batch: Mapping[str, Tensor], peer: Released | None = None
) -> dict[str, Way]:
    """Name → features of the videos (B, D).

    Args:
        models: `plain`; `merged`, its LoRA merged; `half`, merged and halved.
        batch: with uint8 videos.
        peer: the released code with the plain weights.
    """
    video, mask = batch["video"], batch["video_mask"]
    device = video.device.type

    def encoded(name: str, half: bool = False) -> Callable[[], Tensor]:
        @torch.no_grad()
        def features() -> Tensor:
            with torch.autocast(device, torch.bfloat16, enabled=half):
                return models[name].encode_video(video, mask).pooled

        return features

    def with_torchs_product() -> Tensor:
        with replaced(*LEVERS["torch's matrix product"]):
            return encoded("merged")()

    found: dict[str, Way] = {}
    if peer is not None:
        plain = models["plain"]
        pixels = ((video.double() / 255 - plain.pixel_mean) / plain.pixel_std).float()
        found["released"] = Way(lambda: peer.encode_video(pixels, mask))
    return {
        **found,
        "ours": Way(encoded("plain")),
        "ours, LoRA merged": Way(encoded("merged")),
        "  torch's matrix product": Way(with_torchs_product),
        "ours, LoRA merged, bf16": Way(encoded("half", half=True), exact=False),
    }


def compare(steps: Mapping[str, Way]) -> dict[str, str]:
    """Print how far every way is from the first, and return it by name.

    Raises:
        SystemExit: an exact way is too far off.
    """
    told = {next(iter(steps)): ""}
    (first, reference), *others = steps.items()
    wanted = F.normalize(reference.step().float(), dim=-1)
    print(f"against '{first}'")
    for name, way in others:
        found = F.normalize(way.step().float(), dim=-1)
        cosine, error = (found * wanted).sum(-1).min().item(), (found - wanted).abs().max().item()
        told[name] = f"cosine >= {cosine:.6f}, difference <= {error:.1e}"
        print(f"  {name:<34} {told[name]}")
        if way.exact and error > LIMIT:
            raise SystemExit(f"{name}: features differ by more than {LIMIT:g}")
    return told


def main(arguments: list[str] | None = None) -> None:
    """Compare, then time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=sorted(sizes()), default="b32")
    parser.add_argument("--batch", type=int, help="videos; by size")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--peer", type=Path, help="a clone of the released code; b32 or b16")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    with using(args.device):
        measure(args)


def measure(args: argparse.Namespace) -> None:
    """Compare, time and print."""
    size = sizes()[args.size]
    size = Size(size.config, args.batch or size.batch, size.frames, size.words)
    changes = {"vision_layers": 2, "text_layers": 1} if args.size == "demo" else {}
    backbone = "vit-b16" if args.size == "b16" else "vit-b32"
    changes = {**changes, "frames": size.frames}
    settings = Experiments.load().resolve("msrvtt", "discovla", backbone, changes).settings
    models = {n: build(size, settings, args.device).eval() for n in ("plain", "merged", "half")}
    for name in ("merged", "half"):
        merge_lora(models[name])
    models["half"].halve_frozen()
    peer = Released(args.peer, models["plain"], settings) if args.peer else None
    steps = ways(models, make_batch(size, args.device), peer)
    told = compare(steps)
    timings = interleave(
        {n: way.step for n, way in steps.items()}, rounds=args.rounds, sync=waiting(args.device)
    )
    clock = "wall" if args.device.startswith("cuda") else "cpu"
    title = f"{args.size}, {size.batch} x {size.frames} frames"
    print_timings(f"{title}, ms per batch", timings, clock=clock)
    frames, rows = size.batch * size.frames, {}
    for timing in timings:
        spent = seconds(timing, args.device)
        ratio = f"{seconds(timings[0], args.device) / spent:.2f}x"
        rows[timing.name] = [f"{spent:.3g}", ratio, f"{frames / spent:.1f}", told[timing.name]]
    columns = ["s" if clock == "wall" else "CPU s", "ratio", "frames/s", "features"]
    print_rows(columns, rows)
    print(f"\n{title}; {device_name(args.device)}, torch {torch.__version__}")


if __name__ == "__main__":
    main()
