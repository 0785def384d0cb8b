"""A folder of clips of the demo world with names as users have them, and an index of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from discovla.demo.world import draw_clip, encode_video
from discovla.search.build import Options, build
from discovla.search.model import Encoder, Source, plain_clip
from discovla.search.store import Index

NAMES = (
    "plain.mp4",
    'it\'s "quoted".mp4',
    "<b>bold<img src=x onerror=alert(1)>.mp4",
    "ünï cödé 視頻.mp4",
    "a folder/100% #1?&x=1.mp4",
    "x'; DROP TABLE videos; --.mp4",
)
OPTIONS = Options(device="cpu", timeout=60, commit_after=0)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A few rendered clips of three seconds."""
    folder = tmp_path_factory.mktemp("clips")
    paths = []
    for number in range(len(NAMES) + 1):
        paths.append(folder / f"{number}.mp4")
        encode_video(paths[-1], draw_clip("test", number).frames())
    return paths


@pytest.fixture
def fill(clips: list[Path]) -> Callable[[Path], Path]:
    """Puts the clips under their odd names, and a broken one, into a folder."""

    def into(folder: Path) -> Path:
        for path, name in zip(clips, NAMES, strict=False):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, folder / name)
        (folder / "broken.mp4").write_bytes(b"no video at all")
        (folder / "notes.txt").write_text("no video by name")
        return folder

    return into


@pytest.fixture(scope="session")
def model() -> Source:
    return plain_clip("demo-clip", None, Path("config"))


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory, clips: list[Path], model: Source) -> Index:
    """An index that no test changes."""
    folder = tmp_path_factory.mktemp("shared")
    lines = ["path,caption,split"]
    for path, name in zip(clips, NAMES, strict=False):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, folder / name)
        for caption in ("<script>alert('x')</script> & a \"shape\"", f"caption of {name}"):
            quoted = [text.replace('"', '""') for text in (name, caption)]
            lines.append(f'"{quoted[0]}","{quoted[1]}",test')
    (folder / "mine.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    build(folder / "mine.csv", folder / "index", model, window=1.0, options=OPTIONS)
    return Index(folder / "index")


@pytest.fixture(scope="session")
def encoder(index: Index) -> Encoder:
    return Encoder(index.model, "cpu")
