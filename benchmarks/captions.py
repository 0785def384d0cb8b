"""Captions with a shared prefix against plain ones: `python -m benchmarks.captions --tiny`.

Random weights, 20 prompts a frame, 1,368 image tokens (a 320 x 240 frame in LLaVA-NeXT's grids).
`--tiny` runs on a CPU, in float32, and fails unless all answers are the same; so does
`--unshared`, with one prompt for each of several images of 1,948 tokens (640 x 360). `--size 7b`
has the sizes of llava-v1.6-mistral-7b in bfloat16 and is for a GPU; `--size test --device cpu` runs
the same lines in float32, with little to measure. In bfloat16, there and with `--dtype bf16`,
answers that are the same are counted.
Needs torch and transformers only.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import transformers

from benchmarks import machine
from benchmarks.caption_case import SIZES, Case, case_of
from benchmarks.interleave import interleave, print_timings

#: Batches that the plain way is tried with.
BATCHES = (8, 20, 40, 80, 160)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Answers = list[list[int]]


def tiny(frames: int, captions: int, answer: int, rounds: int, dtype: torch.dtype) -> None:
    """On a CPU with one thread, sides in turn; `SystemExit` if an answer in float32 differs."""
    torch.set_num_threads(1)
    case = case_of("tiny", "cpu", dtype, frames=frames, captions=captions, answer=answer)
    ways: dict[str, Callable[[], Answers]] = {
        "batch of a frame's prompts": lambda: case.naive(captions),
        "one prompt at a time": lambda: case.naive(1),
        "shared prefix": case.shared,
    }
    timings = interleave(ways, rounds=rounds, same=partial(compare, dtype=dtype))
    title = f"{frames} frames, {captions} prompts each, {answer} tokens an answer, {dtype}, CPU"
    print_timings(f"{title}; per caption", timings, unit=frames * captions)


def unshared(images: int, answer: int, rounds: int, dtype: torch.dtype) -> None:
    """One prompt per image on a CPU with one thread; else as `tiny`."""
    torch.set_num_threads(1)
    shape = {"height": 360, "width": 640}
    case = case_of("tiny", "cpu", dtype, frames=images, captions=1, answer=answer, **shape)
    ways: dict[str, Callable[[], Answers]] = {
        "batch of 8, padded": lambda: case.naive(8),
        "one prompt at a time": lambda: case.naive(1),
        "one prompt per image": case.shared,
    }
    timings = interleave(ways, rounds=rounds, same=partial(compare, dtype=dtype))
    title = f"{images} images, a prompt each, {answer} tokens an answer, {dtype}, CPU"
    print_timings(f"{title}; per caption", timings, unit=images)
    share = work(case) / timings[-1].cpu / machine.matrix_rate("cpu", dtype)
    print(f"{share:.0%} of the rate of a matrix product")


def compare(plain: Answers, other: Answers, dtype: torch.dtype) -> None:
    """Count the answers that are the same; `SystemExit` if not all are in float32."""
    equal = sum(a == b for a, b in zip(plain, other, strict=True))
    distinct, words = len({tuple(a) for a in plain}), len({t for a in plain for t in a})
    print(f"{equal} of {len(plain)} answers are the same ({distinct} different, {words} words)")
    if equal < len(plain) and dtype == torch.float32:
        raise SystemExit("answers in float32 have changed")


@dataclass(frozen=True)
class Rate:
    """What one way did."""

    name: str
    captions: float
    """Per second."""
    peak: float | None
    """Most memory in GB, weights included; None where it is not measured."""
    answers: Answers


def rate_of(name: str, way: Callable[[], Answers], device: str) -> Rate | None:
    """The better of two runs after one to warm up; None if memory is too small."""
    machine.forget_peak(device)
    try:
        answers = way()
        (timing,) = interleave({name: way}, rounds=2, sync=machine.waiting(device))
    except torch.OutOfMemoryError:
        print(f"{name}: does not fit the memory")
        return None
    return Rate(
        name, len(answers) / machine.seconds(timing, device), machine.peak_gb(device), answers
    )


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
    # The layers behind the one that is read are computed and not needed.
    layers = vision.num_hidden_layers + 1 + case.model.config.vision_feature_layer
    inside = 4 * vision.hidden_size**2 + 2 * vision.hidden_size * vision.intermediate_size
    tile = 2.0 * patches * layers * (inside + 2 * patches * vision.hidden_size)
    tile += 2.0 * patches * text.hidden_size * (vision.hidden_size + text.hidden_size)
    return total + tile * sum(case.tiles(image) for image in case.images)


def rates(size: str, device: str, frames: int, captions: int, answer: int) -> None:
    """Rates of all ways: on a GPU in bfloat16; on a CPU in float32, where answers must be equal.

    Raises:
        SystemExit: an answer differs in float32.
    """
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    case = case_of(size, device, dtype, frames=frames, captions=captions, answer=answer)
    peak = machine.matrix_rate(device, dtype)
    kind = str(dtype).removeprefix("torch.")
    print(f"{machine.device_name(device)}, {peak / 1e12:.3g} TFLOP/s in a {kind} product")
    few = case.about(min(frames, max(1, 160 // captions)), captions, 240, 320)
    single = rate_of("one prompt at a time", lambda: few.naive(1, 8), device)
    most = len(few.images) * captions
    plain = [
        rate_of(f"plain, batch of {batch}", partial(few.naive, batch), device)
        for batch in BATCHES
        if batch <= most
    ]
    shared = rate_of("shared prefix", case.shared, device)
    alone = case.about(2 * frames, 1, 360, 640)
    unshared = rate_of("one prompt per image, 640x360", alone.shared, device)
    rows: dict[str, list[str]] = {}
    whole = [(single, None), *((rate, None) for rate in plain), (shared, case), (unshared, alone)]
    for rate, of in whole:
        if rate is not None:
            share = work(of) / sum(map(len, of.rows)) * rate.captions / peak if of else None
            told = "" if share is None else f"{share:.0%}"
            rows[rate.name] = [f"{rate.captions:.2f}", machine.shown_gb(rate.peak), told, ""]
    if shared is not None:
        # Both draw the same images and prompts, one behind the other.
        for other in (*plain, single):
            if other is not None:
                pairs = list(zip(other.answers, shared.answers, strict=False))
                same = sum(a == b for a, b in pairs)
                ratio = f"{shared.captions / other.captions:.1f}x"
                rows[other.name][3] = f"{same} of {len(pairs)} as shared, which is {ratio} as fast"
                if same < len(pairs) and dtype == torch.float32:
                    raise SystemExit("the shared prefix changed answers in float32")
    machine.print_rows(["captions/s", "peak GB", "of the matrix rate", "answers"], rows)
    fitting = [rate for rate in plain if rate is not None]
    if shared is not None and fitting and single is not None:
        best = max(fitting, key=lambda rate: rate.captions)
        print(
            f"\nshared prefix: {shared.captions / best.captions:.1f}x the best plain batch, "
            f"{shared.captions / single.captions:.1f}x one prompt at a time"
        )
    print(f"{frames} frames x {captions} prompts, {answer} tokens an answer, {kind}")


def main(arguments: list[str] | None = None) -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--tiny", action="store_true", help="on a CPU, CPU time")
    chosen.add_argument("--unshared", action="store_true", help="the same, one prompt per image")
    chosen.add_argument("--size", choices=sorted(SIZES), help="rates of all ways; 7b wants a GPU")
    add = parser.add_argument
    add("--device", default="cuda", help="of --size; cpu rehearses it: --size test --device cpu")
    add("--dtype", choices=DTYPES, default="fp32", help="of --tiny and --unshared")
    add("--frames", type=int, metavar="N", help="frames (2; 8 with --unshared, 32 with --size)")
    add("--captions", type=int, default=20, metavar="N", help="prompts a frame")
    add("--tokens", type=int, default=40, metavar="N", help="tokens an answer")
    add("--rounds", type=int, default=3, metavar="N", help="of --tiny and --unshared")
    args = parser.parse_args(arguments)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    if args.tiny:
        tiny(args.frames or 2, args.captions, args.tokens, args.rounds, DTYPES[args.dtype])
        return
    if args.unshared:
        unshared(args.frames or 8, args.tokens, args.rounds, DTYPES[args.dtype])
        return
    with machine.using(args.device):
        rates(args.size, args.device, args.frames or 32, args.captions, args.tokens)


if __name__ == "__main__":
    main()
