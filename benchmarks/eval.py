"""Ranks of a test set: counted, against sorting, and of a set whose matrix fits no memory.

    python -m benchmarks.eval                          N = 1,000 and 4,917, then 50,000 from a file
    python -m benchmarks.eval --peer ~/DsicoVLA        the metric function of a clone beside it
    python -m benchmarks.eval --large 0                without the large set
    python -m benchmarks.eval --sizes --posts none dsl qbnorm
                                                       the large set alone, post-processed too

Random features of D = 512 in which some captions are near their video. All ways give R@1, R@5,
R@10, median and mean rank of text-to-video retrieval; they are compared before a time is printed.
The large set is measured as the workflow does it, by `evaluate_features` on a file of features and,
for QB-Norm, one of as many training captions; each post-processing in a process of its own, after
its ranks have been held against its definition on 1,000 captions and videos.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from benchmarks.interleave import cpu_seconds, interleave, print_timings
from discovla.errors import UserError
from discovla.retrieval.counting import Plain, standing, standings
from discovla.retrieval.evaluate import PARAMETERS, Post, evaluate_features
from discovla.retrieval.metrics import DIRECTIONS, Standing, summarise
from discovla.retrieval.tiles import FeatureScores, Tiles

Array = npt.NDArray[Any]
Metrics = dict[str, float]

WIDTH, SCALE = 512, 100.0
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


def in_tiles(text: Array, video: Array) -> dict[str, Metrics]:
    """Both directions from features, as the product does it."""
    tiles = Tiles(FeatureScores(text, video), np.arange(len(text)))
    return {d: summarise(found) for d, found in standings(tiles, Plain(*DIRECTIONS)).items()}


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
    ways["from features, both directions"] = lambda: in_tiles(text, video)["t2v"]
    repeats = max(1, LEAST_ELEMENTS // scores.size)

    def repeated(way: Callable[[], Metrics]) -> Callable[[], Metrics]:
        return lambda: [way() for _ in range(repeats)][-1]

    timed = {name: repeated(way) for name, way in ways.items()}
    timings = interleave(timed, rounds=rounds, same=same)
    print_timings(f"{count:,} x {count:,}, one direction, ms", timings, unit=repeats)


def by_definition(text: Array, video: Array, bank: Array, post: Post) -> Metrics:
    """Text-to-video ranks of whole matrices, post-processed as the methods are written down.

    With the defaults of `evaluate.PARAMETERS` at a logit scale of 100.
    """
    scores = (text @ video.T).astype(np.float64)
    if post == "dsl":
        weights = np.exp(SCALE * scores)
        scores = scores * weights / weights.sum(axis=0)
    if post == "qbnorm":
        beta = PARAMETERS["qbnorm"]["beta"]
        liked = (bank @ video.T).astype(np.float64)
        active = np.unique(liked.argmax(axis=1))
        chosen = np.isin(scores.argmax(axis=1), active)
        inverted = np.exp(beta * scores) / np.exp(beta * liked).sum(axis=0)
        scores[chosen] = inverted[chosen]
    return by_sorting(scores)


def write_features(folder: Path, count: int) -> None:
    """A split and a bank of as many captions as `discovla features` writes them."""
    text, video = features(count)
    sides = {"text": text, "video": video, "truth": np.arange(count)}
    sides["logit_scale"] = np.array(SCALE, np.float32)
    metadata = {"schema": "1", "run_id": "benchmark", "seed": "0", "data_id": "0"}
    for split, tensors in {"test": sides, "bank": {"text": features(count, seed=1)[0]}}.items():
        path = folder / f"features.{split}.safetensors"
        save_file(tensors, path, metadata={**metadata, "split": split})


def evaluate(folder: Path, post: Post) -> dict[str, Any]:
    """The product's own evaluation of what `write_features` wrote."""
    bank = folder / "features.bank.safetensors" if post == "qbnorm" else None
    return evaluate_features(folder / "features.test.safetensors", bank, post=post)


def check(posts: Sequence[Post], count: int = 1000) -> None:
    """Hold ranks after every post-processing against its definition; SystemExit if they differ."""
    text, video = features(count)
    bank, _ = features(count, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        write_features(Path(folder), count)
        for post in posts:
            same(by_definition(text, video, bank, post), evaluate(Path(folder), post)["t2v"])


def measure(folder: Path, post: Post) -> None:
    """Time one evaluation, and the memory of its process."""
    cpu, wall = cpu_seconds(), time.perf_counter()
    found = evaluate(folder, post)
    cpu, wall = cpu_seconds() - cpu, time.perf_counter() - wall
    r1 = " and ".join(f"{found[d]['R@1']:.2f}" for d in DIRECTIONS if found[d] is not None)
    print(f"{post}: CPU {cpu:.1f} s, wall {wall:.1f} s, peak {peak_gb():.2f} GB, R@1 {r1}")


def large(count: int, posts: Sequence[Post]) -> None:
    """Time a large set from its file, and the memory of it all."""
    check(posts)
    print(f"{count:,} x {count:,} from a features file, all directions that are defined")
    print(f"the matrix alone would be {4e-9 * count**2:.1f} GB")
    with tempfile.TemporaryDirectory() as folder:
        jobs: list[tuple[Callable[..., None], Any]] = [(write_features, count)]
        # Processes of their own, so that the peak memory of each is its own.
        for function, argument in [*jobs, *((measure, post) for post in posts)]:
            process = get_context("spawn").Process(target=function, args=(Path(folder), argument))
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(f"{function.__name__} {argument} failed")


def peak_gb() -> float:
    """Most memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)


def main() -> None:
    """The large set, then those whose matrix fits."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="*", default=[1_000, 4_917])
    parser.add_argument("--large", type=int, default=50_000, help="0 leaves it out")
    parser.add_argument("--posts", nargs="*", default=["none"], choices=tuple(PARAMETERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", type=Path, help="a clone of the released code")
    args = parser.parse_args()
    if args.large:
        large(args.large, args.posts)
    for count in args.sizes:
        whole_matrix(count, args.rounds, args.peer)
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    print(f"numpy {np.__version__}, Python {platform.python_version()}, BLAS threads: {threads}")


if __name__ == "__main__":
    main()
