"""Nearest neighbours at the size of a large archive: time, memory, disk, latency and recall.

    python -m benchmarks.search                        1,000,000 vectors of 512
    python -m benchmarks.search --vectors 50000        a quick run

Vectors are made like the embeddings of windows of videos: directions whose variance falls as a
power of their number (as measured spectra of CLIP features do), around one mean; 50 vectors gather
around each of many topics, and few topics have most of them. Queries are made like captions: around
another mean (CLIP's modality gap), on the side of one vector each, with noise of their own; they
are therefore no members of the searched set, which is harder for every inverted file and graph.

Recall@10 is measured against exact search in NumPy over all vectors, with 1,000 queries, after the
build, after 10,000 more vectors, and after 10,000 of the first ones were removed. The table is the
one that `discovla index` writes for the moments of videos.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from discovla.search import vectors
from discovla.search.vectors import VectorTable
from discovla.search.vectors import vectors as column_of

Array = npt.NDArray[np.float32]
WIDTH, BLOCK, TOP = 512, 10_000, 10
PER_TOPIC = 50
NOISE, GAP, OWN = 0.6, 0.5, 0.5
"""Spread around a topic; how far queries are from the mean of vectors; a query's own noise."""
SCHEMA = pa.schema([("entry", pa.string()), ("start", pa.float32())])
CHANGED = 10_000


class Cloud:
    """The vectors and queries of one seed; any block can be made without the others."""

    def __init__(self, count: int, seed: int = 0) -> None:
        self.seed, self.topics = seed, max(1, count // PER_TOPIC)
        spectrum = (1 + np.arange(WIDTH)) ** -0.5
        self.spectrum = (spectrum / np.sqrt((spectrum**2).sum())).astype(np.float32)
        rng = np.random.default_rng([seed, 0])
        self.mean, self.query_mean = self._noise(rng, 1), self._noise(rng, 1)
        self.centres = self._noise(rng, self.topics)

    def _noise(self, rng: np.random.Generator, count: int) -> Array:
        return rng.standard_normal((count, WIDTH), dtype=np.float32) * self.spectrum

    def block(self, number: int) -> Array:
        """(BLOCK, WIDTH) unit vectors."""
        rng = np.random.default_rng([self.seed, 1, number])
        topic = (self.topics * rng.random(BLOCK) ** 2).astype(np.int64)
        return _unit(self.mean + self.centres[topic] + NOISE * self._noise(rng, BLOCK))

    def queries(self, count: int, blocks: int) -> Array:
        """(count, WIDTH) unit vectors, each made from one vector of the first `blocks` blocks."""
        rng = np.random.default_rng([self.seed, 2])
        wanted = np.sort(rng.integers(0, blocks, count))
        picked = [
            vector
            for number in np.unique(wanted)
            for vector in self.block(int(number))[rng.integers(0, BLOCK, (wanted == number).sum())]
        ]
        away = np.stack(picked) - GAP * _unit(self.mean)
        made = _unit(self.query_mean + away + OWN * self._noise(rng, count))
        return made[rng.permutation(count)]


def _unit(matrix: Array) -> Array:
    found: Array = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    return found


def name_of(block: int, row: int) -> str:
    """What stands in the column `entry`, unique."""
    return f"{block}-{row}"


def record_batch(cloud: Cloud, number: int, schema: pa.Schema) -> pa.RecordBatch:
    """One block as rows."""
    matrix = cloud.block(number)
    names = pa.array([name_of(number, row) for row in range(BLOCK)])
    starts = pa.array(np.arange(BLOCK), pa.float32())
    return pa.record_batch([names, starts, column_of(matrix)], schema=schema)


class Best:
    """The TOP largest dot products of every query over some blocks: the definition, in NumPy."""

    def __init__(self, cloud: Cloud, queries: Array, blocks: Iterable[int]) -> None:
        self.scores = np.full((len(queries), TOP), -np.inf, np.float32)
        self.rows = np.full((len(queries), TOP), -1, np.int64)
        for number in blocks:
            scores = queries @ cloud.block(number).T
            rows = np.argpartition(-scores, TOP, axis=1)[:, :TOP]
            self._merge(np.take_along_axis(scores, rows, 1), number * BLOCK + rows)

    def _merge(self, scores: Array, rows: npt.NDArray[np.int64]) -> None:
        scores, rows = np.hstack([self.scores, scores]), np.hstack([self.rows, rows])
        order = np.argsort(-scores, axis=1, kind="stable")[:, :TOP]
        self.scores = np.take_along_axis(scores, order, 1)
        self.rows = np.take_along_axis(rows, order, 1)

    def with_(self, other: Best) -> Best:
        """Over the blocks of both."""
        joined = copy.copy(self)
        joined._merge(other.scores, other.rows)
        return joined

    def names(self) -> list[list[str]]:
        """Of the rows, best first."""
        return [[name_of(*divmod(int(row), BLOCK)) for row in rows] for rows in self.rows]


def ask(table: VectorTable, query: Array, whole: bool = False) -> list[str]:
    """Names of the TOP nearest rows."""
    found: list[str] = table.nearest(query, TOP, ["entry"], exact=whole)["entry"].to_pylist()
    return found


def judge(what: str, table: VectorTable, queries: Array, truth: list[list[str]]) -> float:
    """Recall and latency of one query at a time; prints a row of the table, returns recall."""
    for query in queries[:20]:
        ask(table, query)  # files are opened at the first ones
    hits, times, spent = 0, [], time.process_time()
    for query, expected in zip(queries, truth, strict=True):
        begin = time.perf_counter()
        found = ask(table, query)
        times.append(time.perf_counter() - begin)
        hits += len(set(found) & set(expected))
    recall = hits / (TOP * len(queries))
    median, late = np.quantile(times, [0.5, 0.95]) * 1e3
    cpu = (time.process_time() - spent) / len(queries) * 1e3
    figures = f"{recall:.4f} | {median:.1f} | {late:.1f} | {cpu:.1f}"
    print(f"| {what} | {len(table):,} | {figures} |", flush=True)
    return recall


def timed(what: str, step: Callable[[], object]) -> None:
    """Run a step; print its wall and CPU seconds and the peak memory of this process so far."""
    begin, spent = time.perf_counter(), time.process_time()
    step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    wall, cpu = time.perf_counter() - begin, time.process_time() - spent
    print(f"{what}: {wall:.1f} s, CPU {cpu:.1f} s, peak memory so far {peak:.2f} GB", flush=True)


def disk_gb(folder: Path) -> float:
    """Bytes of all files below a folder, in 1e9."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e9


def run(count: int, queries_wanted: int, folder: Path, seed: int = 0) -> float:
    """The whole measurement; returns the smallest recall seen."""
    blocks = max(1, count // BLOCK)
    cloud = Cloud(blocks * BLOCK, seed)
    queries = cloud.queries(queries_wanted, blocks)
    table = VectorTable(folder / "moments", SCHEMA, WIDTH)
    rows = (record_batch(cloud, number, table.schema) for number in range(blocks))
    timed(f"{blocks * BLOCK:,} vectors made and written", lambda: table.add(rows))
    timed("neighbour index", table.tidy)
    print(f"{disk_gb(folder):.2f} GB on disk, search: {table.how()}\n")
    more = max(1, min(CHANGED // BLOCK, blocks - 1))
    first, middle, last = (
        Best(cloud, queries, numbers)
        for numbers in (range(more), range(more, blocks), range(blocks, blocks + more))
    )
    truth = first.with_(middle).names()

    print(
        "| after | vectors | recall@10 | median ms | p95 ms | CPU ms |\n|---|---|---|---|---|---|"
    )
    recalls = [judge("the build", table, queries, truth)]
    for query, expected in zip(queries[:5], truth[:5], strict=True):
        if ask(table, query, whole=True) != expected:
            raise AssertionError("exact search differs from NumPy")

    extra = [record_batch(cloud, blocks + number, table.schema) for number in range(more)]
    begin = time.perf_counter()
    table.add(extra)
    adding = time.perf_counter() - begin
    truth = first.with_(middle).with_(last).names()
    recalls.append(judge(f"adding {CHANGED:,}", table, queries, truth))

    gone = [name_of(number, row) for number in range(more) for row in range(BLOCK)]
    begin = time.perf_counter()
    table.remove("entry", gone)
    removing = time.perf_counter() - begin
    truth = middle.with_(last).names()
    recalls.append(judge(f"removing {CHANGED:,}", table, queries, truth))
    found = {name for query in queries for name in ask(table, query)}
    if found & set(gone) or len(table) != blocks * BLOCK:
        raise AssertionError("removed vectors are still found")
    begin = time.perf_counter()
    table.tidy()
    tidying = time.perf_counter() - begin
    recalls.append(judge("tidying up", table, queries, truth))
    print(
        f"\nadding {CHANGED:,}: {adding:.1f} s, removing {CHANGED:,}: {removing:.1f} s, "
        f"tidying up: {tidying:.1f} s, {disk_gb(folder):.2f} GB on disk"
    )
    return min(recalls)


def main(arguments: list[str] | None = None) -> None:
    """Print the figures; exit 1 if a recall is below 0.95."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vectors", type=int, default=1_000_000, help="%(default)s")
    parser.add_argument("--queries", type=int, default=1_000, help="%(default)s")
    parser.add_argument("--folder", type=Path, help="where to write; default: a temporary folder")
    args = parser.parse_args(arguments)
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, pylance {vectors.lance().__version__}")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        least = run(args.vectors, args.queries, Path(folder))
    if least < 0.95:
        raise SystemExit(f"recall@10 of {least:.4f} is below 0.95")


if __name__ == "__main__":
    main()
