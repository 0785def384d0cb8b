"""A self-made cut of LSMDC: tab-separated files without a header, ids with dots, XVID in AVI."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from discovla.storage.files import atomic_write
from tests.rehearsal.cut import Cut
from tests.rehearsal.films import Film

MOVIES = ("0101_The_Red_Circle", "1102_Blue_Square_II", "3103_PINK_CROSS_2012")
SIZES = {"train": 10, "val": 2, "test": 8}
FILES = {
    "train": "LSMDC16_annos_training.csv",
    "val": "LSMDC16_annos_val.csv",
    "test": "LSMDC16_challenge_1000_publictect.csv",
}
DAMAGE = {("train", 4): "page", ("test", 6): "empty"}
TOLD = {0: 3, 5: 2, 9: 2}
"""Training clips with several sentences; all others have one."""
TIME = "{:02d}.{:02d}.{:02d}.{:03d}"


def films() -> list[Film]:
    """Clips of three films, `<movie>/<clip id>.avi`, in the wide picture of the cinema."""
    found = []
    for at, (split, number) in enumerate((s, i) for s, n in SIZES.items() for i in range(n)):
        movie = MOVIES[at % len(MOVIES)]
        begin, end = times(at)
        name = f"{movie}_{begin}-{end}"
        damage = DAMAGE.get((split, number))
        found.append(
            Film(name, split, number, f"{movie}/{name}.avi", size=(136, 320), damage=damage)
        )
    return found


def times(at: int) -> tuple[str, str]:
    """Begin and end of a clip within its film, as ids and columns write them."""
    return TIME.format(at // 60, at % 60, 7, 31 * at), TIME.format(at // 60, at % 60, 9, 31 * at)


def write_annotations(root: Path, films: Sequence[Film]) -> None:
    """Three files of six columns; further sentences of a clip stand on later rows."""
    for split, name in FILES.items():
        part = [film for film in films if film.split == split]
        told = TOLD if split == "train" else {}
        rounds = [
            row(film, number)
            for number in range(3)
            for i, film in enumerate(part)
            if number < told.get(i, 1)
        ]
        with atomic_write(root / name) as handle:
            handle.writelines(rounds)


def row(film: Film, number: int) -> str:
    """One line; a quotation mark is an ordinary character, be it the first or without a partner."""
    begin, end = film.clip_id[-25:].split("-")
    sentence = film.sentences(3)[number].replace("We see", 'SOMEONE says, "Look:')
    if film.split == "test" and film.number == 0:
        sentence = f'"Now," says SOMEONE, {sentence}.'
    return "\t".join([film.clip_id, begin, end, begin, end, sentence]) + "\n"


CUT = Cut(
    dataset="lsmdc",
    table="table2",
    films=films(),
    write_annotations=write_annotations,
    counts={
        "train": {"clips": 10, "captions": 14},
        "val": {"clips": 2, "captions": 2},
        "test": {"clips": 8, "captions": 8},
    },
    frames=12,
    words=32,
    provenance={
        "full": "trained",
        "discovla": "trained",
        "zero-shot": "evaluated",
        "lora": "trained",
    },
)
