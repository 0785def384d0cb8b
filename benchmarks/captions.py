"""Captions with a shared prefix against plain ones: `python -m benchmarks.captions --tiny`.

Random weights, 20 prompts a frame, 1,368 image tokens (a 320 x 240 frame in LLaVA-NeXT's grids).
`--tiny` runs on a CPU, in float32, and fails unless all answers are the same; so does `--unshared`,
with one prompt for each of several images of 1,948 tokens (640 x 360). `--size 7b` has the sizes of
llava-v1.6-mistral-7b in bfloat16 and is for a GPU; there, answers that are the same are counted.
Needs torch and transformers only.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import transformers

from benchmarks.caption_case import Case, case_of
from benchmarks.interleave import interleave, print_timings

#: Batches that the plain way is tried with.
BATCHES = (8, 20, 40, 80, 160)
Answers = list[list[int]]


def tiny(frames: int, captions: int, answer: int, rounds: int) -> None:
    """On a CPU with one thread, sides in turn; `SystemExit` if an answer differs."""
    torch.set_num_threads(1)
    case = case_of("tiny", "cpu", torch.float32, frames=frames, captions=captions, answer=answer)
    ways: dict[str, Callable[[], Answers]] = {
        "batch of a frame's prompts": lambda: case.naive(captions),
        "one prompt at a time": lambda: case.naive(1),
        "shared prefix": case.shared,
    }
    timings = interleave(ways, rounds=rounds, same=all_the_same)
    title = f"{frames} frames, {captions} prompts each, {answer} tokens an answer, float32, CPU"
    print_timings(f"{title}; per caption", timings, unit=frames * captions)


def unshared(images: int, answer: int, rounds: int) -> None:
    """One prompt per image on a CPU with one thread; `SystemExit` if an answer differs."""
    torch.set_num_threads(1)
    shape = {"height": 360, "width": 640}
    case = case_of("tiny", "cpu", torch.float32, frames=images, captions=1, answer=answer, **shape)
    ways: dict[str, Callable[[], Answers]] = {
        "batch of 8, padded": lambda: case.naive(8),
        "one prompt at a time": lambda: case.naive(1),
        "one prompt per image": case.shared,
    }
    timings = interleave(ways, rounds=rounds, same=all_the_same)
    title = f"{images} images, a prompt each, {answer} tokens an answer, float32, CPU"
    print_timings(f"{title}; per caption", timings, unit=images)
    share = work(case) / timings[-1].cpu / matrix_rate(torch.float32, "cpu", side=2048, repeats=2)
    print(f"{share:.0%} of the rate of a matrix product in float32")


def all_the_same(plain: Answers, other: Answers) -> None:
    """`SystemExit` if answers differ."""
    equal = sum(a == b for a, b in zip(plain, other, strict=True))
    distinct, words = len({tuple(a) for a in plain}), len({t for a in plain for t in a})
    print(f"{equal} of {len(plain)} answers are the same ({distinct} different, {words} words)")
    if equal < len(plain):
        raise SystemExit("answers in float32 have changed")


@dataclass(frozen=True)
class Rate:
    """What one way did on a GPU."""

    name: str
    captions: float
    """Per second."""
    gigabytes: float
    """Most memory, weights included."""
    answers: Answers


def on_gpu(name: str, way: Callable[[], Answers]) -> Rate | None:
    """The better of two runs after one to warm up; None if memory is too small."""
    best = float("inf")
    try:
        way()
        torch.cuda.reset_peak_memory_stats()
        for _ in range(2):
            torch.cuda.synchronize()
            start = time.perf_counter()
            answers = way()
            torch.cuda.synchronize()
            best = min(best, time.perf_counter() - start)
    except torch.OutOfMemoryError:
        answers = []
    torch_peak = torch.cuda.max_memory_allocated() / 1e9
    torch.cuda.empty_cache()
    return Rate(name, len(answers) / best, torch_peak, answers) if answers else None


def matrix_rate(
    dtype: torch.dtype, device: str = "cuda", side: int = 8192, repeats: int = 20
) -> float:
    """Measured FLOP/s of a large matrix product; on a CPU, of its time in this process."""
    a = torch.randn(side, side, device=device, dtype=dtype)
    clock, wait = time.process_time, lambda: None
    if device == "cuda":
        clock, wait = time.perf_counter, torch.cuda.synchronize
    best = float("inf")
    for _ in range(3):
        wait()
        start = clock()
        for _ in range(repeats):
            a @ a
        wait()
        best = min(best, clock() - start)
    return 2 * side**3 * repeats / best


def work(case: Case) -> float:
    """FLOP that the answers need if every prefix is read once, by the sizes of the model."""
    text = case.model.config.text_config
    vision = case.model.config.vision_config
    width = text.hidden_size // text.num_attention_heads
    projections = 2 * text.hidden_size * width
    projections *= text.num_attention_heads + text.num_key_value_heads
    token = 2.0 * text.num_hidden_layers
    token *= projections + 3 * text.hidden_size * text.intermediate_size
    pair = 4.0 * text.num_hidden_layers * text.hidden_size
    head = 2.0 * text.hidden_size * text.vocab_size
    total = 0.0
    for frame in case.frames():
        prefix = frame.length(frame.shared)
        total += prefix * token + prefix**2 / 2 * pair
        for question in frame.questions:
            own = frame.tail(question) + case.answer - 1
            total += own * token + (own * prefix + own**2 / 2) * pair + case.answer * head
    patches = (vision.image_size // vision.patch_size) ** 2 + 1
    inside = 4 * vision.hidden_size**2 + 2 * vision.hidden_size * vision.intermediate_size
    tile = 2.0 * patches * vision.num_hidden_layers * (inside + 2 * patches * vision.hidden_size)
    tile += 2.0 * patches * text.hidden_size * (vision.hidden_size + text.hidden_size)
    return total + tile * sum(case.tiles(image) for image in case.images)


def size_7b(frames: int, captions: int, answer: int) -> None:
    """Rates on one GPU in bfloat16."""
    if not torch.cuda.is_available():
        raise SystemExit("--size 7b needs a CUDA device, and torch sees none; --tiny runs on a CPU")
    case = case_of("7b", "cuda", torch.bfloat16, frames=frames, captions=captions, answer=answer)
    peak = matrix_rate(torch.bfloat16)
    print(f"{torch.cuda.get_device_name()}, {peak / 1e12:.0f} TFLOP/s in a bfloat16 product")
    plain_case = case.about(max(1, 160 // captions), captions, 240, 320)
    rates = [on_gpu("one prompt at a time", lambda: plain_case.naive(1, 8))]
    for batch in BATCHES:
        plain_batch = partial(plain_case.naive, batch)
        rates.append(on_gpu(f"plain, batch of {batch}", plain_batch))
    shared = on_gpu("shared prefix", case.shared)
    single_case = case.about(64, 1, 360, 640)
    single = on_gpu("one prompt per image", single_case.shared)
    print(f"{'':<28}{'captions/s':>12}{'GB':>8}{'of matrix rate':>16}")
    for rate, of in [*((r, None) for r in rates), (shared, case), (single, single_case)]:
        if rate is not None:
            share = work(of) / sum(map(len, of.rows)) * rate.captions / peak if of else None
            line = f"{rate.name:<28}{rate.captions:>12.2f}{rate.gigabytes:>8.1f}"
            print(line + (f"{share:>15.0%}" if share is not None else ""))
    plain = [rate for rate in rates[1:] if rate is not None]
    if shared is not None and plain and rates[0] is not None:
        best = max(plain, key=lambda rate: rate.captions)
        print(
            f"{shared.captions / best.captions:.1f}x the best plain batch, "
            f"{shared.captions / rates[0].captions:.1f}x one prompt at a time"
        )
        pairs = list(zip(best.answers, shared.answers, strict=False))
        print(f"{sum(a == b for a, b in pairs)} of {len(pairs)} answers are the same in bfloat16")


def main(arguments: list[str] | None = None) -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--tiny", action="store_true", help="on a CPU, in float32")
    chosen.add_argument("--unshared", action="store_true", help="the same, one prompt per image")
    chosen.add_argument("--size", choices=["7b"], help="on a GPU, in bfloat16")
    parser.add_argument("--frames", type=int, metavar="N", help="frames (2, 8 or 32)")
    parser.add_argument("--captions", type=int, default=20, metavar="N", help="prompts a frame")
    parser.add_argument("--tokens", type=int, default=40, metavar="N", help="tokens an answer")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="on a CPU")
    args = parser.parse_args(arguments)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    if args.tiny:
        tiny(args.frames or 2, args.captions, args.tokens, args.rounds)
    elif args.unshared:
        unshared(args.frames or 8, args.tokens, args.rounds)
    else:
        size_7b(args.frames or 32, args.captions, args.tokens)


if __name__ == "__main__":
    main()
