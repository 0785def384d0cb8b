from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from discovla.data.encoding import (
    AUTO_SHORT_SIDE,
    ENCODINGS,
    choose_encoding,
    decode,
    encode,
    shrunk,
    stored_bytes,
)
from discovla.errors import UserError
from discovla.experiments import Experiments
from discovla.settings import FRAME_STORAGE

SIDES = st.integers(1, 2000)


def clips(*sizes: tuple[int, int], status: str = "ok") -> pd.DataFrame:
    table = pd.DataFrame(sizes, columns=["width", "height"]).astype("float64")
    return table.assign(status=status)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(SIDES, SIDES, st.none() | SIDES)
def test_raw_size_is_exact(width: int, height: int, short_side: int | None) -> None:
    frame = np.broadcast_to(np.uint8(0), (height, width, 3))
    small = frame if short_side is None or short_side >= min(width, height) else None
    stored = stored_bytes(width, height, "raw", short_side)
    if small is not None:
        assert stored == frame.size
    else:
        assert stored == 3 * short_side * round(
            max(width, height) * short_side / min(width, height)
        )


@pytest.mark.parametrize(("size", "side"), [((48, 64), 24), ((90, 31), 20), ((10, 20), 24)])
def test_estimate_of_raw_is_the_length_of_what_is_written(size: tuple[int, int], side: int) -> None:
    frame = noise(*size)
    data = encode(shrunk(frame, side), "raw", 95)
    assert len(data) == stored_bytes(size[1], size[0], "raw", side)
    assert (shrunk(frame, side) is frame) == (min(size) <= side)


def test_estimates_grow_with_quality_and_lie_above_smooth_pictures() -> None:
    y, x = np.mgrid[:240, :320]
    smooth = np.stack([x % 256, y, (x + y) // 3], axis=-1).astype(np.uint8)
    sizes = [stored_bytes(320, 240, "jpeg", None, quality) for quality in (1, 50, 75, 90, 95, 100)]
    assert sizes == sorted(sizes)
    assert stored_bytes(320, 240, "jpeg", None) == sizes[4]
    for encoding in ENCODINGS:
        assert len(encode(smooth, encoding, 95)) <= stored_bytes(320, 240, encoding, None)


def test_auto_is_raw_below_the_limit_and_jpeg_above() -> None:
    table = pd.concat([clips((320, 240), (1280, 720)), clips((9999, 9999), status="missing")])
    raw = 10 * 3 * (320 * 240 + 1280 * 720)
    fits = choose_encoding(table, 10, limit_gb=raw / 1e9)
    assert (fits.name, fits.short_side, fits.bytes, fits.raw_bytes) == ("raw", None, raw, raw)
    above = choose_encoding(table, 10, limit_gb=(raw - 1) / 1e9)
    assert (above.name, above.short_side, above.quality) == ("jpeg", AUTO_SHORT_SIDE, 95)
    assert above.raw_bytes == raw
    small = 3 * 10 * (320 * 240 // 3 + 455 * 256 // 3)
    assert above.bytes == pytest.approx(0.5 * small, rel=1e-4)
    assert above.metadata() == {"encoding": "jpeg", "short_side": 256, "quality": 95}
    assert fits.metadata() == {"encoding": "raw", "short_side": None}


def test_auto_keeps_a_short_side_that_was_asked_for() -> None:
    table = clips((1280, 720))
    fits = choose_encoding(table, 1, short_side=72, limit_gb=3 * 72 * 128 / 1e9)
    assert (fits.name, fits.short_side) == ("raw", 72)
    above = choose_encoding(table, 1, short_side=300, limit_gb=0)
    assert (above.name, above.short_side) == ("jpeg", 300)


@given(st.lists(st.tuples(SIDES, SIDES), max_size=30), st.randoms())
def test_choice_does_not_depend_on_the_order_of_clips(sizes: list, random: object) -> None:
    shuffled = list(sizes)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    limit = sum(w * h for w, h in sizes) * 1.5e-9
    one, other = (choose_encoding(clips(*order), 3, limit_gb=limit) for order in (sizes, shuffled))
    assert one == other


@pytest.mark.parametrize("name", ENCODINGS)
def test_what_was_asked_for_is_kept_whatever_its_size(name: str) -> None:
    chosen = choose_encoding(clips((640, 480)), 2, encoding=name, limit_gb=0)
    assert (chosen.name, chosen.short_side, chosen.asked) == (name, None, name)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"encoding": "webp"}, "allowed: auto, raw, png, jpeg"),
        ({"quality": 0}, "allowed: 1 to 100"),
        ({"quality": 101}, "allowed: 1 to 100"),
        ({"short_side": 0}, "at least 1 pixel"),
        ({"limit_gb": -1.0}, "0 or more"),
        ({"limit_gb": float("nan")}, "0 or more"),
    ],
)
def test_values_that_are_not_allowed(option: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        choose_encoding(clips((64, 48)), 1, **option)


def test_png_is_exact_jpeg_is_close_and_nothing_else_is_opened() -> None:
    picture = np.kron(noise(6, 8), np.ones((8, 8, 1), np.uint8))
    assert np.array_equal(decode(encode(picture, "png", 95)), picture)
    assert np.abs(decode(encode(picture, "jpeg", 95)).astype(int) - picture).mean() < 4
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "BMP")
    with pytest.raises(OSError, match="cannot identify"):
        decode(buffer.getvalue())


def test_storage_decides_the_frames_id_where_it_is_not_the_default() -> None:
    experiments = Experiments.load()

    def frames_id(**settings: object) -> str:
        return experiments.resolve("msrvtt", "lora", "vit-b32", settings).frames_id

    usual = experiments.resolve("msrvtt", "lora", "vit-b32", {}).settings
    assert frames_id(**{name: getattr(usual, name) for name in FRAME_STORAGE}) == frames_id()
    others = {
        **{"frame_encoding": "png", "frame_quality": 90},
        **{"frame_short_side": 256, "frame_limit_gb": 10},
    }
    assert others.keys() == set(FRAME_STORAGE)
    ids = {frames_id(**{name: value}) for name, value in others.items()}
    assert len(ids | {frames_id()}) == 5
