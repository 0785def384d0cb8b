"""The table of pseudo captions at MSRVTT's size: `python -m benchmarks.caption_table`.

Made-up captions of 9,000 videos x 20 captions x 12 frames, in 64 shards, are merged, opened, read
in random order, and opened as training does it: the first time, which makes the token ids, and
again. Ids of some captions are held against open_clip's tokenizer. Each step is a process of its
own, so that its largest memory can be read.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.planning import measured
from discovla.captioning import table
from discovla.captioning.tokens import CaptionTokens
from discovla.data.annotations.base import Clip, of_split, read_annotations, to_table
from discovla.data.annotations.base import write_annotations as write
from discovla.data.shards import shard_name, shard_of
from discovla.storage.files import read_json, write_json
from discovla.tokenizer import ClipTokenizer

CLIPS, CAPTIONS, FRAMES, SHARDS = 9000, 20, 12, 64
CAPTIONS_ID, WORDS = "0123456789", 32
READS, COMPARED = 50_000, 500
PHRASES = 2000
VOCABULARY = (  # noqa: SIM905
    "a the this image frame shows man woman child dog car kitchen street stage table young old "
    "wearing holding standing sitting talking cooking singing playing red blue white black large "
    "small shirt guitar microphone bowl vegetables crowd screen background outdoors indoors bright "
    "with and in on of while near behind appears suggesting scene close-up camera looking towards"
).split()


def make(folder: Path, clips: int, captions: int) -> None:
    """Annotations and caption shards of `clips` training videos."""
    rng = random.Random(0)
    pairs = [
        (Clip(f"video{n}", "train", (f"video{n}",)), " ".join(rng.choices(VOCABULARY, k=9)))
        for n in range(clips)
        for _ in range(captions)
    ]
    write(
        to_table(pairs), folder / "annotations.parquet", dataset="benchmark", rules={}, sources={}
    )
    train = read_annotations(folder / "annotations.parquet")
    shard = train["clip_id"].map({f"video{n}": shard_of(f"video{n}", SHARDS) for n in range(clips)})
    phrases = pa.array([" ".join(rng.choices(VOCABULARY, k=10)) for _ in range(PHRASES)])
    generator = np.random.default_rng(0)
    for number in range(1, SHARDS + 1):
        path = folder / "shards" / f"{shard_name(number, SHARDS)}.parquet"
        with table.writer(path, _metadata()) as handle:
            table.append(handle, _rows(train[shard == number], phrases, generator))


def _metadata() -> dict[str, object]:
    return {
        "captions_id": CAPTIONS_ID,
        "frames_id": "f" * 10,
        "frames_per_clip": FRAMES,
        "kind": "guided",
        "prompt": "",
        "excluded": [],
        "absent": [],
    }


def _rows(train: pd.DataFrame, phrases: pa.Array, generator: np.random.Generator) -> pa.Table:
    """Every caption x every frame; a pseudo caption is three phrases, about 165 letters."""
    rows = train.loc[train.index.repeat(FRAMES)]
    position = np.tile(np.arange(FRAMES), len(train))
    parts = [phrases.take(pa.array(generator.integers(PHRASES, size=len(rows)))) for _ in range(3)]
    columns = {
        "clip_id": rows["clip_id"].to_numpy(),
        "caption_id": rows["caption_id"].to_numpy(),
        "position": position,
        "frame_index": position * 30,
        "timestamp": position * 1.0,
        "video_caption": rows["caption"].to_numpy(),
        "pseudo_caption": pc.binary_join_element_wise(*parts, " "),
        "n_tokens": np.full(len(rows), 38),
        "finish_reason": pa.array(["stop"] * len(rows)),
        "status": pa.array(["ok"] * len(rows)),
    }
    return pa.table({name: pa.array(column) for name, column in columns.items()}).cast(table.SCHEMA)


def read_randomly(folder: Path) -> dict[str, float]:
    """Open the table and read the captions of random video captions."""
    captions = table.CaptionTable(folder / "merged.parquet")
    ids = of_split(read_annotations(folder / "annotations.parquet"), "train")["caption_id"]
    wanted = random.Random(1).choices(ids.tolist(), k=READS)
    begin = time.perf_counter()
    for caption_id in wanted:
        captions.for_caption(caption_id)
    return {"texts/s": READS * FRAMES / (time.perf_counter() - begin)}


def train_from(folder: Path) -> dict[str, float]:
    """Open the tokens as a training does it, and take those of random pairs."""
    ids = of_split(read_annotations(folder / "annotations.parquet"), "train")["caption_id"]
    begin = time.process_time()
    tokens = _tokens(folder)
    opened = time.process_time() - begin
    wanted = random.Random(1).choices(ids.tolist(), k=READS)
    begin = time.perf_counter()
    for caption_id in wanted:
        tokens.for_caption(caption_id).astype(np.int64)
    rate = READS * FRAMES / (time.perf_counter() - begin)
    return {"CPU s for the ids": opened, "rows of ids/s": rate}


def compare(folder: Path) -> dict[str, float]:
    """Ids of random pairs by open_clip's tokenizer; `SystemExit` if one differs."""
    from open_clip.tokenizer import SimpleTokenizer

    theirs, tokens = SimpleTokenizer(), _tokens(folder)
    captions = tokens.table
    ids = of_split(read_annotations(folder / "annotations.parquet"), "train")["caption_id"]
    wanted = random.Random(2).choices(ids.tolist(), k=COMPARED)
    texts = [text for caption_id in wanted for text in captions.for_caption(caption_id)]
    begin = time.process_time()
    expected = np.zeros((len(texts), WORDS), np.int64)
    for row, text in zip(expected, texts, strict=True):
        body = theirs.encode(text)[: WORDS - 2]
        row[: len(body) + 2] = [theirs.sot_token_id, *body, theirs.eot_token_id]
    seconds = time.process_time() - begin
    found = np.concatenate([tokens.for_caption(caption_id) for caption_id in wanted])
    if not np.array_equal(found, expected):
        raise SystemExit("the ids are not those of open_clip's tokenizer")
    return {
        "texts compared, all equal": len(texts),
        "texts/CPU s by open_clip": len(texts) / seconds,
    }


def _tokens(folder: Path) -> CaptionTokens:
    return CaptionTokens(table.CaptionTable(folder / "merged.parquet"), ClipTokenizer(), WORDS)


STEPS: dict[str, Callable[[Path], dict[str, float]]] = {
    "read randomly": read_randomly,
    "open for training": train_from,
    "open again": train_from,
    "compare": compare,
}


def main(arguments: list[str] | None = None) -> None:
    """Print a line per step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=CLIPS, metavar="N")
    parser.add_argument("--captions", type=int, default=CAPTIONS, metavar="N", help="per video")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.step:
        write_json(args.folder / "rates.json", STEPS[args.step](args.folder))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, args.clips, args.captions)
        _compare(folder, args.clips * args.captions * FRAMES)


def _shown(rate: float) -> str:
    return f"{rate:,.1f}" if rate < 100 else f"{rate:,.0f}"


def _compare(folder: Path, rows: int) -> None:
    shards = sum(path.stat().st_size for path in (folder / "shards").iterdir())
    print(f"{rows:,} rows in {SHARDS} shards, {shards / 1e6:,.0f} MB")
    print(f"{'step':<20}{'seconds':>9}{'CPU s':>8}{'MB':>8}")
    merge = [sys.executable, "-m", "discovla", "merge-captions", "--captions-id", CAPTIONS_ID]
    merge += ["--annotations", str(folder / "annotations.parquet")]
    merge += ["--shards", str(folder / "shards"), "--output", str(folder / "merged.parquet")]
    own = [sys.executable, "-m", "benchmarks.caption_table", "--folder", str(folder), "--step"]
    for step, command in {"merge": merge, **{name: [*own, name] for name in STEPS}}.items():
        cost = measured(step, command)
        rates = read_json(folder / "rates.json") if step in STEPS else {}
        said = "".join(
            f"   {rate:,.{1 if rate < 100 else 0}f} {what}" for what, rate in rates.items()
        )
        times = f"{cost.seconds:>9.1f}{cost.cpu:>8.1f}{cost.megabytes:>8,.0f}"
        print(f"{step:<20}{times}{said}", flush=True)
    tokens = sum(path.stat().st_size for path in (folder / "merged.tokens").iterdir())
    merged = (folder / "merged.parquet").stat().st_size
    print(f"merged: {merged / 1e6:,.0f} MB, its token ids {tokens / 1e6:,.0f} MB")


if __name__ == "__main__":
    main()
