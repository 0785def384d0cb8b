"""Damaged files of every stage: `python -m tests.campaigns.artefacts --cases 5000`.

Each case damages one file that the workflow has written, as disks, copies and hands do it, and
reads it again. Either its reader refuses it with a `UserError` that names the file and says what to
do, or what it read is equal to what was written, bit for bit.
"""

from __future__ import annotations

import contextlib
import random
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from discovla.captioning import table as captions
from discovla.data.annotations.base import Clip, read_annotations, to_table, write_annotations
from discovla.data.annotations.base import read_metadata as annotations_metadata
from discovla.data.clips import SCHEMA as CLIPS
from discovla.data.clips import read_clips, write_clips
from discovla.data.frame_file import record_batch, shard_file
from discovla.data.store import FrameStore
from discovla.errors import UserError
from discovla.retrieval.rows import read_rows, rows_path, write_rows
from discovla.retrieval.stored import read_features, read_texts
from discovla.storage.files import read_record, write_record
from discovla.storage.tensors import save_tensors
from discovla.training.checkpoint import (
    adapter_metadata,
    read_adapter,
    read_run_config,
    save_adapter,
)
from discovla.training.state import STATE_NAME, Identity, load_state, save_state
from tests.campaigns.command import damage_command

PAGE = 4096


@dataclass(frozen=True)
class Artefact:
    """A kind of file: how one is written, and how all that is in it is read."""

    name: str
    write: Callable[[Path], None]
    read: Callable[[Path], Any]


def _annotations(path: Path) -> None:
    pairs = [(Clip(f"clip {n}", "train", (f"clip {n}",)), f"a caption of {n}") for n in range(300)]
    write_annotations(to_table(pairs), path, dataset="a", rules={"x": "y"}, sources={"f": "0" * 64})


def _clips(path: Path) -> None:
    values: dict[str, Any] = {"status": "ok", "error": None, "path": "a.mp4", "rotation": 0}
    rows = [
        {name: values.get(name, n) for name in CLIPS.names} | {"clip_id": f"c{n}"}
        for n in range(300)
    ]
    write_clips(pd.DataFrame(rows, columns=CLIPS.names), path, "a")


def _frames(path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 2, 24, 32, 3), np.uint8)
    metadata: dict[str, Any] = {"frames_id": "f" * 10, "frames": 2, "shard": path.stem}
    metadata |= {"clips": 20, "clip_ids": [f"c{n}" for n in range(20)]}
    shape = {"width": 32, "height": 24, "encoding": "raw", "reader": "pyav", "bad_packets": 0}
    with shard_file(path, metadata) as writer:
        for n in range(20):
            times = [{"position": p, "frame_index": p, "timestamp": p / 3} for p in range(2)]
            rows = [
                {"clip_id": f"c{n}", **shape, **t, "data": pixels[n, p].tobytes()}
                for p, t in enumerate(times)
            ]
            writer.write_batch(record_batch(rows))


def _read_frames(path: Path) -> Any:
    store = FrameStore(path)
    found = [(store.clip(c).tobytes(), store.meta(c).timestamp.tolist()) for c in store.clip_ids]
    return store.clip_ids, found, {k: v for k, v in store.metadata.items() if k != "footer"}


def _captions(path: Path) -> None:
    values: dict[str, Any] = {"finish_reason": "stop", "status": "ok", "n_tokens": 7}
    rows = [
        {name: values.get(name) for name in captions.SCHEMA.names}
        | {"caption_id": f"c{n // 2}", "position": n % 2, "pseudo_caption": f"a ring, {n * n}"}
        for n in range(600)
    ]
    captions.write_shard(rows, path, {"captions_id": "c" * 10, "kind": "guided"})


def _tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(40, 32, generator=generator) for name in ("a", "b", "c")}


def _adapter(path: Path) -> None:
    metadata = adapter_metadata(
        run_id="lora-x", method="lora", seed=0, step=6, selection="last", data_id="d", excluded=[]
    )
    save_adapter(path, _tensors(), metadata)


def _plain(found: tuple[dict[str, torch.Tensor], dict[str, str]]) -> Any:
    tensors, metadata = found
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}, metadata


IDENTITY = Identity("lora-x", 0, "d")
ROWS = [{"step": float(n), "lr": 0.1 / (n + 1), "loss": 1 / (n + 3)} for n in range(200)]


def _training() -> tuple[dict[str, torch.nn.Parameter], torch.optim.Optimizer]:
    parameters = {name: torch.nn.Parameter(tensor) for name, tensor in _tensors().items()}
    return parameters, torch.optim.AdamW(parameters.values())


def _state(path: Path) -> None:
    parameters, optimiser = _training()
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    save_state(path.parent, IDENTITY, 6, parameters, optimiser, ROWS)


def _read_state(path: Path) -> Any:
    parameters, optimiser = _training()
    step, rows = load_state(path.parent, IDENTITY, parameters, optimiser)
    values = [p.detach().numpy().tobytes() for p in parameters.values()]
    states = [optimiser.state[p] for p in parameters.values()]
    moments = [{k: v.numpy().tobytes() for k, v in state.items()} for state in states]
    return step, rows, values, moments


FEATURES = {"run_id": "lora-x", "seed": "0", "split": "test", "data_id": "d", "dataset": "a"}


def _features(path: Path) -> None:
    unit = {n: torch.nn.functional.normalize(t, dim=1) for n, t in _tensors().items()}
    tensors = {"text": unit["a"], "video": unit["b"], "truth": torch.arange(40)}
    save_tensors(path, tensors | {"logit_scale": torch.tensor(100.0)}, FEATURES)
    rows = [{"kind": k, "row": n, "id": f"{k} {n}"} for k in ("text", "video") for n in range(40)]
    write_rows(path, pd.DataFrame(rows), FEATURES)


def _bank(path: Path) -> None:
    text = torch.nn.functional.normalize(_tensors()["a"], dim=1)
    save_tensors(path, {"text": text}, FEATURES)


def _read_arrays(features: Any) -> Any:
    return {name: array.tobytes() for name, array in features.tensors.items()}, features.metadata


def _ids(path: Path) -> None:
    """The table beside a features file, which is damaged in its place."""
    _features(path.with_suffix(".safetensors"))


def _read_ids(path: Path) -> Any:
    features = read_features(path.with_suffix(".safetensors"))
    assert rows_path(features.path) == path
    return read_rows(features).to_dict("list")


def _frame(found: pd.DataFrame) -> Any:
    return found.to_json(), list(found.columns)


RECALLS = {name: 100 / (n + 3) for n, name in enumerate(("R@1", "R@5", "R@10", "R@sum", "MnR"))}
METRICS = {"schema": 1, "run_id": "lora-x", "seed": 0, "t2v": RECALLS, "v2t": RECALLS} | {
    "code": {"commit": "c" * 40, "dirty": False, "package_sha": "d" * 64},
    "versions": {f"library{n}": f"{n}.0" for n in range(12)},
}
CONFIG = {
    "schema": 1,
    "run_id": "lora-x",
    "dataset": "a",
    "settings": {"lr": 6e-4, "epochs": 5},
    "backbone": {"weights": None},
    "frames_id": "f" * 10,
    "captions_id": None,
}

ARTEFACTS = [
    Artefact(
        "annotations.parquet",
        _annotations,
        lambda path: (_frame(read_annotations(path)), annotations_metadata(path)),
    ),
    Artefact("clips.parquet", _clips, lambda path: _frame(read_clips(path))),
    Artefact("1-of-1.arrow", _frames, _read_frames),
    Artefact(
        "captions.parquet",
        _captions,
        lambda path: (captions.read(path).to_pylist(), captions.read_metadata(path)),
    ),
    Artefact("adapter.safetensors", _adapter, lambda path: _plain(read_adapter(path))),
    Artefact("epoch1.safetensors", _adapter, lambda path: _plain(read_adapter(path))),
    Artefact(STATE_NAME, _state, _read_state),
    Artefact(
        "features.test.safetensors", _features, lambda path: _read_arrays(read_features(path))
    ),
    Artefact("features.bank.safetensors", _bank, lambda path: _read_arrays(read_texts(path))),
    Artefact("features.val.parquet", _ids, _read_ids),
    Artefact("metrics.none.json", lambda path: write_record(path, METRICS), read_record),
    Artefact("config.json", lambda path: write_record(path, CONFIG), read_run_config),
]


def damaged(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """The name of a damage, and the bytes after it."""
    kind = rng.choice(["flip", "zero", "page", "cut", "longer", "moved", "empty", "noise"])
    found = bytearray(data)
    place = rng.randrange(len(data))
    if kind == "flip":
        for _ in range(rng.randint(1, 4)):
            found[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "zero":
        end = min(len(data), place + rng.choice([1, 4, 16, 300]))
        found[place:end] = bytes(end - place)
    elif kind == "page":  # as a file system leaves what it had not yet written
        start = place // PAGE * PAGE
        end = min(len(data), start + PAGE * rng.randint(1, 4))
        found[start:end] = bytes(end - start)
    elif kind == "cut":
        del found[place:]
    elif kind == "longer":
        found += rng.randbytes(rng.randint(1, 5000))
    elif kind == "moved":  # a part of the file over another part
        size = rng.randint(1, len(data) // 2)
        source = rng.randrange(len(data) - size)
        target = rng.randrange(len(data) - size)
        found[target : target + size] = data[source : source + size]
    elif kind == "noise":
        end = min(len(data), place + rng.randint(1, 64))
        found[place:end] = rng.randbytes(end - place)
    else:
        found.clear()
    return kind, bytes(found)


@dataclass(frozen=True)
class Outcome:
    """What came of one case; `fault` says what was wrong, "" = nothing."""

    case: str
    result: str
    fault: str = ""


class Campaign:
    """Sound files of every kind, and what is read of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sound: dict[str, tuple[bytes, Any]] = {}
        for artefact in ARTEFACTS:
            path = self.path(artefact)
            path.parent.mkdir(parents=True)
            artefact.write(path)
            self._sound[artefact.name] = (path.read_bytes(), artefact.read(path))

    def path(self, artefact: Artefact) -> Path:
        """Where a file of this kind lies, alone but for what belongs to it."""
        return self.folder / artefact.name.replace(".", "-") / artefact.name

    def case(self, number: int, seed: int) -> Outcome:
        """Damage one file and read it."""
        rng = random.Random(f"{seed}/{number}")
        artefact = ARTEFACTS[number % len(ARTEFACTS)]
        path = self.path(artefact)
        data, expected = self._sound[artefact.name]
        how, content = damaged(data, rng)
        case = f"case {number} ({artefact.name}: {how})"
        # A new file: the reader remembers those that it has found sound.
        path.unlink()
        path.write_bytes(content)
        try:
            found = artefact.read(path)
        except UserError as error:
            text = str(error)
            told = str(path) in text and "emove" in text
            return Outcome(case, "refused", "" if told else f"file or advice not named: {error}")
        except Exception as error:
            return Outcome(case, "crashed", f"{type(error).__name__}: {error}")
        finally:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            path.write_bytes(data)
        same = found == expected
        return Outcome(case, "read", "" if same else "other content than was written")


def run(cases: int, seed: int) -> list[Outcome]:
    """All cases."""
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder))
        return [campaign.case(number, seed) for number in range(cases)]


def main(arguments: list[str] | None = None) -> int:
    """Print how many were refused and read, and every fault; exit 1 if there is one."""
    return damage_command(__doc__, run, 5000, arguments)


if __name__ == "__main__":
    sys.exit(main())
