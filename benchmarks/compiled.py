"""Whether `torch.compile` pays: a step and the encoding of videos, blocks compiled and as they are.

    python -m benchmarks.compiled                     2 blocks per tower of ViT-B/32, one CPU thread
    python -m benchmarks.compiled --blocks 12 --device cuda --batch 128

Every block is a graph of its own for the compiler, so that few blocks tell the ratio and the time
of compiling grows with their number. Before a ratio is printed, losses and gradients (as the
largest error of a tensor over its largest value) are held against those in float32: compiling may
not add more than half precision itself does.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.interleave import cpu_seconds, interleave, print_timings
from benchmarks.machine import replaced
from benchmarks.methods import Size, make_batch
from benchmarks.train import LEVERS, Result, build, differences, ours, sizes
from discovla.experiments import Experiments
from discovla.models import encoder
from discovla.models.retriever import Retriever

ALLOWED = 2.0
"""How many times as far from float32 as without compiling."""
GRAPHS = 256
"""That the compiler may make of one function; by default it gives up after a few."""


def with_blocks(size: Size, blocks: int) -> Size:
    """The same CLIP with fewer blocks in each tower."""
    towers = {n: {**size.config[n], "layers": blocks} for n in ("vision_cfg", "text_cfg")}
    return replace(size, config={**size.config, **towers})


def encoded(model: Retriever, batch: Mapping[str, Tensor]) -> Tensor:
    """Normalised features (B, D) of the videos, in half precision."""
    with torch.no_grad(), torch.autocast(batch["video"].device.type, torch.bfloat16):
        return F.normalize(model.encode_video(batch["video"], batch["video_mask"]).pooled, dim=-1)


def check(exact: Result, plain: Result, compiled: Result) -> None:
    """Print how far half precision is from float32; SystemExit if compiling adds too much."""
    for name, limit, found in zip(
        ("loss", "gradients"), differences(plain, exact), differences(compiled, exact), strict=True
    ):
        print(f"{name} off by {limit:.1e}, compiled {found:.1e}")
        if found > ALLOWED * limit:
            raise SystemExit(f"compiled: {name} more than {ALLOWED:g} times as far off")


def main(arguments: list[str] | None = None) -> None:
    """Compile, compare, then time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=sorted(sizes()), default="b32")
    parser.add_argument("--blocks", type=int, default=2, help="of each tower")
    parser.add_argument("--batch", type=int, help="samples; by size")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch._dynamo.config.recompile_limit = GRAPHS  # type: ignore[attr-defined]
    size = with_blocks(sizes()[args.size], args.blocks)
    size = replace(size, batch=args.batch or size.batch)
    changes = {"vision_layers": 1, "text_layers": 1, "frames": size.frames, "words": size.words}
    settings = Experiments.load().resolve("msrvtt", "discovla", "vit-b32", changes).settings
    model, half = (build(size, settings, args.device) for _ in range(2))
    half.halve_frozen()
    batch = make_batch(size, args.device)
    run_block = torch.compile(encoder._run_block, backend=args.backend)

    def compiled(way: Callable[[], Any]) -> Callable[[], Any]:
        def call() -> Any:
            # oneDNN's product of float32 matrices cannot be compiled.
            with (
                replaced(encoder, "_run_block", run_block),
                replaced(*LEVERS["torch's matrix product"]),
            ):
                return way()

        return call

    ways: dict[str, Callable[[], Any]] = {
        "step, bf16": lambda: ours(half, batch, "bf16"),
        "step, fp32": lambda: ours(model, batch),
        "videos encoded, bf16": lambda: encoded(half, batch),
    }
    kept: dict[str, Result] = {}
    for name, way in ways.items():
        began = cpu_seconds()
        compiled(way)()
        print(f"{name}: compiled in {cpu_seconds() - began:.0f} CPU s")
    for name, way in {"exact": ways["step, fp32"], "plain": ways["step, bf16"]}.items():
        kept[name] = copied(way())
    check(kept["exact"], kept["plain"], copied(compiled(ways["step, bf16"])()))
    check(kept["exact"], kept["plain"], copied(compiled(ways["step, fp32"])()))
    on_gpu = args.device.startswith("cuda")
    for name, way in ways.items():
        both = {name: way, "  compiled": compiled(way)}
        sync = torch.cuda.synchronize if on_gpu else lambda: None
        print_timings(name, interleave(both, rounds=args.rounds, sync=sync))
    print(f"torch {torch.__version__}, {args.device}, {args.blocks} blocks per tower")


def copied(result: Result) -> Result:
    """A step's result that the next one does not overwrite."""
    return result[0].clone(), {name: grad.clone() for name, grad in result[1].items()}


if __name__ == "__main__":
    main()
