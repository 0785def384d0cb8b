"""What the cuts of all datasets share: their files, and the experiment that runs on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from discovla.experiments import Experiments
from tests.rehearsal.films import Film
from tests.workflow.run import edit

Counts = Mapping[str, Mapping[str, int]]
STEPS = 2
ADDED_ROWS = (
    {"row": "zero-shot", "label": "CLIP", "backbone": "vit-b32", "method": "zero_shot"},
    {"row": "lora", "label": "LoRA", "backbone": "vit-b32", "method": "lora"},
)


@dataclass(frozen=True)
class Cut:
    """A self-made cut of one dataset, its table, and what must come out."""

    dataset: str
    table: str
    films: Sequence[Film]
    write_annotations: Callable[[Path, Sequence[Film]], None]
    """Write the dataset's own files below a folder."""
    counts: Counts
    """Clips and captions of each split, as a reader must count them."""
    frames: int
    words: int
    """What the paper uses here (App. A)."""
    provenance: Mapping[str, str]
    """Row → `trained` or `evaluated`; all other rows are quoted."""
    batch_size: int = 2
    added_rows: Sequence[Mapping[str, Any]] = field(default=ADDED_ROWS)
    """Rows that the paper's table lacks; adding them is how users make an ablation."""

    @property
    def target(self) -> str:
        """The table as the workflow knows it."""
        return f"results/{self.dataset}/{self.table}.csv"

    def write(self, root: Path) -> None:
        """Write annotation files and videos below `root`."""
        root.mkdir(parents=True, exist_ok=True)
        self.write_annotations(root, self.films)
        for film in self.films:
            film.write(root)

    def of_split(self, split: str) -> list[Film]:
        """The films of a split, in order."""
        return [film for film in self.films if film.split == split]

    @property
    def missing(self) -> list[str]:
        """Clips without a file."""
        return [film.clip_id for film in self.films if film.file is None]

    @property
    def unreadable(self) -> list[str]:
        """Clips whose file gives no frames."""
        return [film.clip_id for film in self.films if film.file and film.damage]

    @property
    def obvious(self) -> list[str]:
        """Bad clips that names and sizes of files give away; to find others means to decode."""
        empty = [film.clip_id for film in self.films if film.damage == "empty"]
        return [*self.missing, *empty]

    def configure(self, folder: Path, digest: str) -> None:
        """Point config/ at the cut, the random weights, and a training of a few steps."""
        config = folder / "config"
        edit(config / "datasets" / f"{self.dataset}.yaml", self._shrink)
        edit(config / "tables" / f"{self.table}.yaml", self._add_rows)
        edit(config / "backbones.yaml", lambda all_: all_["vit-b32"].update(sha256=digest))
        edit(config / "captioners.yaml", _shorten_captions)
        quoted = self._quoted(Experiments.load(folder=config))
        edit(config / "config.yaml", lambda content: content.update(_machine(quoted)))

    def _shrink(self, content: dict[str, Any]) -> None:
        """Sizes of the cut; frames, words and rules stay those of the real dataset."""
        content["expected"] = {split: dict(counts) for split, counts in self.counts.items()}
        content["set"] |= {"batch_size": self.batch_size, "max_steps": STEPS}
        content |= {"shards": 2, "device": "cpu"}

    def _add_rows(self, content: dict[str, Any]) -> None:
        content["rows"] += [dict(row) for row in self.added_rows]

    def _quoted(self, experiments: Experiments) -> dict[str, list[str]]:
        """Rows not to be trained: those of the second backbone everywhere, and of this table
        those that would take too long."""
        quoted = {
            table: [row.row for row in experiments.rows(self.dataset, table) if _on_b16(row)]
            for table in experiments.tables
        }
        rows = experiments.rows(self.dataset, self.table)
        quoted[self.table] = [row.row for row in rows if row.row not in self.provenance]
        return {table: rows for table, rows in quoted.items() if rows}


def _on_b16(row: Any) -> bool:
    return bool(row.backbone == "vit-b16")


def _machine(quoted: Mapping[str, list[str]]) -> dict[str, Any]:
    return {
        "weights": {"vit-b32": "weights/ViT-B-32.pt"},
        "captioner_path": {"llava-next": "weights/llava-next"},
        "quote": dict(quoted),
        "workers": 0,
    }


def _shorten_captions(content: dict[str, Any]) -> None:
    content["llava-next"] |= {"dtype": "fp32", "max_new_tokens": 8, "batch_size": 64}
