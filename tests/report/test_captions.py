from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from discovla.captioning import table
from discovla.captioning.run import caption_shard
from discovla.cli import main
from discovla.report.pictures import drawing, evenly, plain, thumbnail
from tests.captioning.conftest import CAPTIONS_ID, FRAMES_ID, FakeCaptioner, World


def say(image: np.ndarray, prompt: str, second_try: bool) -> str:
    kind = "guided" if "describes" in prompt else "unguided"
    return f'<b>{kind}</b> & "{image.mean():.1f}" costs $5 to $9 \\frac 日本 {{x}}'


def captioned(world: World, kind: str, name: str) -> Path:
    """A merged table of the world."""
    shard = world.folder / kind / "1-of-1.parquet"
    captioner = FakeCaptioner(say)
    frames = world.shard()
    caption_shard(frames, world.annotations, kind, captioner, shard, captions_id=CAPTIONS_ID)
    path = world.folder / "captions" / f"{name}.parquet"
    table.merge([shard], world.annotations, CAPTIONS_ID, path)
    return path


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def command(world: World, captions: Path, output: Path, *options: str) -> list[str]:
    files = ["--annotations", str(world.annotations), "--frames", str(world.folder / "frames")]
    return ["show-captions", str(captions), *files, "--output", str(output), *options]


def texts_of(svg: Path) -> str:
    """All text of a picture, as a reader sees it; fails unless the file is sound XML."""
    return " ".join(
        "".join(element.itertext())
        for element in ET.parse(svg).iter("{http://www.w3.org/2000/svg}text")
    )


def test_frames_beside_their_captions_guided_and_unguided(world: World) -> None:
    unguided = captioned(world, "unguided", "b")
    captioned(world, "guided", "a")
    (unguided.parent / "no-table.parquet").write_bytes(b"PAR1")
    svg = world.folder / "captions.svg"
    assert main(command(world, unguided, svg)) == 0
    said = texts_of(svg)
    for clip_id in ("plain", "-rf ../'x\"", "short"):
        assert f"{clip_id}: {world.captions[clip_id][0]}" in said
        for image in world.images(clip_id):
            for kind in ("guided", "unguided"):
                assert f'<b>{kind}</b> & "{image.mean():.1f}"' in said
    assert "costs $5 to $9 \\frac 日本 {x}" in " ".join(said.split())
    assert said.index("guided · fake") < said.index("unguided · fake")
    assert "broken" not in said
    assert "secret" not in said


def test_one_table_and_one_clip(world: World) -> None:
    captions = captioned(world, "guided", "a")
    captioned(world, "unguided", "b")
    svg = world.folder / "captions.svg"
    options = ["--alone", "--clip", "short", "--count", "1"]
    assert main(command(world, captions, svg, *options)) == 0
    said = texts_of(svg)
    assert said.count("<b>guided</b>") == 1
    assert "unguided" not in said
    assert "plain" not in said


def test_same_picture_twice_and_as_png(world: World) -> None:
    captions = captioned(world, "guided", "a")
    first, second, png = (world.folder / n for n in ("1.svg", "2.svg", "3.png"))
    for path in (first, second, png):
        assert main(command(world, captions, path, "--clips", "1")) == 0
    assert first.read_bytes() == second.read_bytes()
    assert Image.open(png).size[0] > 300


def test_tables_of_other_frames_are_not_beside(world: World) -> None:
    captions = captioned(world, "guided", "a")
    other = captioned(world, "unguided", "b")
    metadata = {**table.read_metadata(other), "frames_id": "e" * 10}
    table.write_shard(table.read(other).to_pylist(), other, metadata)
    svg = world.folder / "captions.svg"
    assert main(command(world, captions, svg)) == 0
    assert "unguided" not in texts_of(svg)
    assert FRAMES_ID != "e" * 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--clip", "broken"], "of clip 'broken'"),
        (["--clip", "exam"], "of clip 'exam'"),
        (["--clips", "0"], "give 1 or more"),
        (["--output", "captions.pdf"], ".svg or .png"),
    ],
)
def test_what_cannot_be_shown(
    world: World, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    captions = captioned(world, "guided", "a")
    assert main([*command(world, captions, world.folder / "c.svg"), *options]) == 1
    assert message in capsys.readouterr().err


@given(st.text(max_size=200))
def test_any_text_can_stand_in_a_picture(text: str) -> None:
    broken = plain(text, 20, lines=3)
    assert broken.count("\n") < 3
    assert all(len(line) <= 20 for line in broken.split("\n"))
    ET.fromstring(f"<a>{broken.replace('&', '').replace('<', '')}</a>")


def test_a_hostile_text_stays_a_text(tmp_path: Path) -> None:
    text = "</text><script>alert('1')</script> $\\alpha$ \x00\x0b &amp;"
    with drawing(tmp_path / "a.svg", (4, 1)) as figure:
        figure.text(0, 0, plain(text, 100))
    tree = ET.parse(tmp_path / "a.svg")
    assert not list(tree.iter("{http://www.w3.org/2000/svg}script"))
    assert texts_of(tmp_path / "a.svg") == text.replace("\x00", "\ufffd").replace("\x0b", "\ufffd")


def test_no_picture_is_left_after_a_failure(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), drawing(tmp_path / "a.svg", (1, 1)):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@given(st.integers(1, 20), st.integers(1, 20))
def test_evenly_spread_numbers(count: int, total: int) -> None:
    numbers = evenly(count, total)
    assert len(numbers) == min(count, total)
    assert numbers == sorted(set(numbers))
    assert numbers[0] == 0
    assert count == 1 or numbers[-1] == total - 1


def test_thumbnails_keep_their_shape() -> None:
    assert thumbnail(np.zeros((240, 320, 3), np.uint8)).shape == (120, 160, 3)
    assert thumbnail(np.zeros((10, 20, 3), np.uint8)).shape == (10, 20, 3)
