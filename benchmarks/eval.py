"""Ranks of a test set: counted, against sorting, and of a set whose matrix fits no memory.

    python -m benchmarks.eval                          N = 1,000 and 4,917, then 50,000 in blocks
    python -m benchmarks.eval --peer ~/DsicoVLA        the metric function of a clone beside it
    python -m benchmarks.eval --large 0                without the large set

Random features of D = 512 in which some captions are near their video. All ways give R@1, R@5,
R@10, median and mean rank of text-to-video retrieval; they are compared before a time is printed.
In blocks, both directions are ranked and only a strip of the matrix exists at a time.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.interleave import cpu_seconds, interleave, print_timings
from discovla.errors import UserError
from discovla.retrieval.metrics import Standing, row_blocks, standing, summarise

Array = npt.NDArray[Any]
Metrics = dict[str, float]

WIDTH, STRIP = 512, 256
LEAST_ELEMENTS = 50_000_000
"""Scores that are ranked in one measurement: the clock of CPU time is coarse."""
_RELEASED = {"R@1": "R1", "R@5": "R5", "R@10": "R10", "MdR": "MR", "MnR": "MeanR"}


def features(count: int, seed: int = 0) -> tuple[Array, Array]:
    """Unit vectors (N, 512) of captions and videos, float32; row i belongs to row i."""
    rng = np.random.default_rng(seed)
    video = rng.standard_normal((count, WIDTH), dtype=np.float32)
    text = rng.standard_normal((count, WIDTH), dtype=np.float32)
    text += video * rng.uniform(0, 0.5, (count, 1)).astype(np.float32)
    for side in (text, video):
        side /= np.linalg.norm(side, axis=1, keepdims=True)
    return text, video


def by_sorting(scores: Array) -> Metrics:
    """The definition: the place of the target in its sorted row."""
    order = np.argsort(-scores, axis=1, kind="stable")
    places = np.argmax(order == np.arange(len(scores))[:, None], axis=1)
    return summarise(Standing(places, np.zeros_like(places)))


def by_counting(scores: Array) -> Metrics:
    """How many score more than the target."""
    return summarise(standing(scores, np.arange(len(scores)), "t2v"))


def in_blocks(text: Array, video: Array) -> tuple[Metrics, Metrics]:
    """Both directions from features with one caption per video; strips of the matrix at a time."""
    return _one_direction(text, video), _one_direction(video, text)


def _one_direction(queries: Array, items: Array) -> Metrics:
    above, equal = [], []
    for rows in row_blocks(len(queries), len(items), STRIP):
        truth = np.arange(len(queries))[rows]
        found = standing(queries[rows] @ items.T, truth, "t2v")
        above.append(found.above)
        equal.append(found.equal)
    return summarise(Standing(np.concatenate(above), np.concatenate(equal)))


def released_metric(clone: Path) -> Callable[[Array], Metrics]:
    """The metric function of a clone of the released code, its results by our names."""
    path = clone / "tvr" / "utils" / "metrics.py"
    spec = importlib.util.spec_from_file_location("released_metrics", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise UserError(f"--peer {clone}: no tvr/utils/metrics.py; give a clone of it")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def metric(scores: Array) -> Metrics:
        found = module.compute_metrics(scores)
        return {own: float(found[theirs]) for own, theirs in _RELEASED.items()}

    return metric


def same(first: Mapping[str, float], other: Mapping[str, float]) -> None:
    """Raise unless all numbers that both have agree."""
    for name in first.keys() & other.keys():
        if not np.isclose(first[name], other[name], rtol=1e-12, atol=1e-9):
            raise SystemExit(f"{name}: {first[name]} and {other[name]}")


def whole_matrix(count: int, rounds: int, peer: Path | None) -> None:
    """Compare and time the ways that have the matrix."""
    text, video = features(count)
    scores = text @ video.T
    ways: dict[str, Callable[[], Metrics]] = {"argsort and find": lambda: by_sorting(scores)}
    if peer is not None:
        metric = released_metric(peer)
        ways = {"released metric": lambda: metric(scores), **ways}
    ways["count"] = lambda: by_counting(scores)
    same(by_counting(scores), in_blocks(text, video)[0])
    repeats = max(1, LEAST_ELEMENTS // scores.size)

    def repeated(way: Callable[[], Metrics]) -> Callable[[], Metrics]:
        return lambda: [way() for _ in range(repeats)][-1]

    timed = {name: repeated(way) for name, way in ways.items()}
    timings = interleave(timed, rounds=rounds, same=same)
    print_timings(f"{count:,} x {count:,}, one direction, ms", timings, unit=repeats)


def large(count: int) -> None:
    """Time both directions of a large set in blocks, and its memory."""
    text, video = features(count)
    cpu, wall = cpu_seconds(), time.perf_counter()
    t2v, v2t = in_blocks(text, video)
    cpu, wall = cpu_seconds() - cpu, time.perf_counter() - wall
    print(f"\n{count:,} x {count:,} in strips of {STRIP}, both directions, from features")
    print(f"CPU {cpu:.1f} s, wall {wall:.1f} s, peak memory {peak_gb():.2f} GB")
    print(f"the matrix alone would be {4e-9 * count**2:.1f} GB")
    print(f"R@1 {t2v['R@1']:.2f} and {v2t['R@1']:.2f}")


def peak_gb() -> float:
    """Most memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)


def main() -> None:
    """The large set first, so that its peak memory is its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="*", default=[1_000, 4_917])
    parser.add_argument("--large", type=int, default=50_000, help="0 leaves it out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", type=Path, help="a clone of the released code")
    args = parser.parse_args()
    if args.large:
        large(args.large)
    for count in args.sizes:
        whole_matrix(count, args.rounds, args.peer)
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    print(f"numpy {np.__version__}, Python {platform.python_version()}, BLAS threads: {threads}")


if __name__ == "__main__":
    main()
