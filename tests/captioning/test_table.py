from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from discovla.captioning import table
from discovla.captioning.run import caption_shard
from discovla.cli import main
from discovla.data.annotations.base import write_annotations
from discovla.errors import UserError
from tests.captioning.conftest import CAPTIONS_ID, FRAMES_ID, FakeCaptioner, echo

N_SHARDS = 3


@pytest.fixture
def shards(world) -> list[Path]:
    """Every shard of the world, captioned."""
    paths = []
    for number in range(1, N_SHARDS + 1):
        path = world.folder / "captions" / f"{number}-of-{N_SHARDS}.parquet"
        caption_shard(
            world.shard(number, N_SHARDS),
            world.annotations,
            "guided",
            FakeCaptioner(echo),
            path,
            captions_id=CAPTIONS_ID,
        )
        paths.append(path)
    return paths


def merge(world, shards, captions_id: str = CAPTIONS_ID) -> dict[str, Any]:
    return table.merge(shards, world.annotations, captions_id, world.folder / "merged.parquet")


def rewrite(path: Path, change) -> None:
    """Change the rows of a shard behind the program's back."""
    rows = table.read(path).to_pylist()
    metadata = table.read_metadata(path)
    table.write_shard(change(rows) or rows, path, metadata)


def fullest(shards: list[Path]) -> Path:
    return max(shards, key=lambda path: table.read(path).num_rows)


def test_merged_table_gives_the_captions_of_each_caption(world, shards) -> None:
    metadata = merge(world, shards)
    assert metadata["counts"] == {"rows": 18, "ok": 18}
    assert metadata["excluded"] == ["broken"]
    captions = table.CaptionTable(
        world.folder / "merged.parquet", captions_id=CAPTIONS_ID, frames_id=FRAMES_ID
    )
    assert captions.metadata == {"schema": 1, **metadata}
    assert captions.frames_per_clip == 3
    assert captions.excluded == {"broken"}
    wanted = world.training_captions()
    assert len(captions) == len(wanted)
    for row in wanted.itertuples():
        texts = captions.for_caption(row.caption_id)
        assert row.caption_id in captions
        assert [text.split(" of ")[0] for text in texts] == [
            f"frame {image.mean():.4f}" for image in world.images(row.clip_id)
        ]
        assert all(f"describes {row.caption}." in text for text in texts)
    with pytest.raises(UserError, match="no pseudo captions for caption 'exam#0'"):
        captions.for_caption("exam#0")


def test_what_remains_faulty_is_counted_and_named(world, shards, caplog) -> None:
    """Nothing is dropped: the rows are there, and the metadata says which they are."""
    path = fullest(shards)

    def spoil(rows):
        rows[0] |= {"status": "empty", "pseudo_caption": ""}
        rows[1] |= {"status": "repeated", "finish_reason": "length"}
        rows[2] |= {"status": "retried", "finish_reason": "length"}

    rewrite(path, spoil)
    rows = table.read(path).to_pylist()
    metadata = merge(world, shards)
    assert metadata["counts"] == {
        **{"rows": 18, "ok": 15, "retried": 1, "empty": 1, "repeated": 1},
        "cut_off": 2,
    }
    keys = [[row["caption_id"], row["position"]] for row in rows]
    assert metadata["remaining"] == {"empty": keys[:1], "repeated": keys[1:2], "unfinished": []}
    assert "1 of 18 captions stay empty" in caplog.text
    assert f"1 of 18 captions stay repeated; the first (caption_id, position): [{keys[1]}]" in (
        caplog.text
    )
    merged = table.read(world.folder / "merged.parquet").to_pylist()
    assert len(merged) == 18
    assert all(row in merged for row in rows)


def test_rows_out_of_order_come_back_in_order(world, shards) -> None:
    merge(world, shards)
    before = table.read(world.folder / "merged.parquet").to_pylist()
    for path in shards:
        rewrite(path, lambda rows: rows[::-1])
    merge(world, shards)
    assert table.read(world.folder / "merged.parquet").to_pylist() == before


def test_missing_pairs_are_named(world, shards) -> None:
    rewrite(fullest(shards), lambda rows: rows[:1] + rows[2:])
    with pytest.raises(UserError, match=r"1 of 18 .* missing.*\('[^']*#0', 1\)"):
        merge(world, shards)
    assert not (world.folder / "merged.parquet").exists()


def test_only_five_missing_pairs_are_named(world, shards) -> None:
    others = [path for path in shards if path != fullest(shards)]
    with pytest.raises(UserError, match=r"pseudo captions .* are missing") as error:
        merge(world, others)
    assert str(error.value).count("#") == 5


def change_caption(rows):
    rows[0]["video_caption"] += "!"


def change_clip(rows):
    rows[0]["clip_id"] = "elsewhere"


def change_id(rows):
    rows[1]["caption_id"] = "exam#0"


def change_position(rows):
    rows[2]["position"] = 3


def double(rows):
    return [*rows, rows[1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_caption, "row 1 .*another video_caption"),
        (change_clip, "row 1 .*another clip_id"),
        (change_id, r"row 2 \(caption 'exam#0', position 1\): is no training caption"),
        (change_position, "row 3 .*only 3 frames"),
        (double, r"position 1\): occurs twice"),
    ],
)
def test_rows_that_should_not_be_there(world, shards, change, message) -> None:
    rewrite(fullest(shards), change)
    with pytest.raises(UserError, match=message):
        merge(world, shards)


def test_same_shard_twice(world, shards) -> None:
    with pytest.raises(UserError, match="occurs twice"):
        merge(world, [*shards, fullest(shards)])


def test_shards_of_other_captions(world, shards) -> None:
    with pytest.raises(UserError, match="captions_id is 0123456789, expected aaaaaaaaaa"):
        merge(world, shards, "a" * 10)
    metadata = table.read_metadata(shards[1])
    table.write_shard(table.read(shards[1]).to_pylist(), shards[1], {**metadata, "dtype": "bf16"})
    with pytest.raises(UserError, match=r"2-of-3\.parquet: dtype is 'bf16'.*'fp32'"):
        merge(world, shards)
    with pytest.raises(UserError, match="no caption shards"):
        merge(world, [])


def test_annotations_that_changed_since(world, shards) -> None:
    world.table.loc[0, "caption"] = "another text"
    write_annotations(world.table, world.annotations, dataset="w", rules={}, sources={})
    with pytest.raises(UserError, match="another video_caption"):
        merge(world, shards)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"nonsense" * 100])
def test_corrupt_parquet(world, shards, content) -> None:
    shards[0].write_bytes(content)
    with pytest.raises(UserError, match=r"1-of-3\.parquet: cannot be read"):
        merge(world, shards)
    with pytest.raises(UserError, match="cannot be read"):
        table.CaptionTable(shards[0])


def test_parquet_damaged_inside(world, shards) -> None:
    path = fullest(shards)
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged: the checksum"):
        merge(world, shards)


def test_table_of_other_captions_or_frames(world, shards) -> None:
    merge(world, shards)
    path = world.folder / "merged.parquet"
    with pytest.raises(UserError, match="captions_id is 0123456789, expected x"):
        table.CaptionTable(path, captions_id="x")
    with pytest.raises(UserError, match="frames_id is ffffffffff, expected y"):
        table.CaptionTable(path, frames_id="y")
    with pytest.raises(UserError, match="no such file"):
        table.CaptionTable(world.folder / "none.parquet")
    with pytest.raises(UserError, match="columns are"):
        table.CaptionTable(world.annotations)


def test_table_out_of_order(world, shards) -> None:
    merge(world, shards)
    path = world.folder / "merged.parquet"
    for change in (lambda rows: rows[::-1], lambda rows: rows[:-1]):
        merge(world, shards)
        rewrite(path, change)
        with pytest.raises(UserError, match="not in order"):
            table.CaptionTable(path)


def test_shards_of_a_folder(world, shards) -> None:
    folder = shards[0].parent
    assert table.shards_in(folder) == shards
    shards[1].rename(folder / "kept.txt")
    with pytest.raises(UserError, match=r"1 of 3 shards are missing: 2-of-3\.parquet"):
        table.shards_in(folder)
    shards[0].rename(folder / "1-of-2.parquet")
    with pytest.raises(UserError, match=r"\[2, 3\]"):
        table.shards_in(folder)
    with pytest.raises(UserError, match="no caption shards here"):
        table.shards_in(world.folder)


def test_commands(world, llava_folder, capsys) -> None:
    common = ["--annotations", str(world.annotations), "--captions-id", CAPTIONS_ID]
    folder = world.folder / "captions"
    for number in (1, 2):
        arguments = ["--frames", str(world.shard(number, 2)), "--model", str(llava_folder)]
        arguments += ["--kind", "guided", "--batch-size", "8", "--max-new-tokens", "4"]
        arguments += ["--device", "cpu", "--output", str(folder / f"{number}-of-2.parquet")]
        assert main(["caption", *common, *arguments]) == 0
    merged = world.folder / "merged.parquet"
    assert main(["merge-captions", *common, "--shards", str(folder), "--output", str(merged)]) == 0
    captions = table.CaptionTable(merged)
    assert len(captions) == 6
    assert captions.metadata["model"] == str(llava_folder)
    assert capsys.readouterr().out == ""
    assert main(["merge-captions", *common, "--output", str(merged)]) == 1
    for kind, missing in (("guided", "--model"), ("released", "--released")):
        arguments = ["--frames", "x.arrow", "--kind", kind, "--output", str(merged)]
        assert main(["caption", *common, *arguments]) == 1
        assert missing in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--temperature", "0.5", "--model", "m"], "need --sample-seed"),
        (["--url", "http://a/v1", "--model", "m"], "--url: of no effect with --engine trans"),
        (["--engine", "server", "--sample-seed", "1"], "--sample-seed: of no effect with --engine"),
        (["--engine", "server", "--grid", "single"], "--grid: of no effect with --engine server"),
        (["--engine", "server"], "needs --url"),
        (["--model", "m", "--words", "2"], "words is 2"),
        (["--model", "m", "--frames", "none.arrow"], "none.arrow: no such file"),
        (["--model", "m", "--annotations", "none.parquet"], "none.parquet: no such file"),
    ],
)
def test_what_cannot_work_is_told_before_a_model_is_looked_for(
    world, capsys, options: list[str], message: str
) -> None:
    command = ["caption", "--kind", "guided", "--frames", str(world.shard())]
    command += ["--annotations", str(world.annotations), "--captions-id", CAPTIONS_ID]
    out = world.folder / "out.parquet"
    assert main([*command, "--output", str(out), *options]) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_batch_size_that_is_no_number(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["caption", "--batch-size", "many"])
    assert "'many' is neither a number nor auto" in capsys.readouterr().err


def test_unguided_captions_are_the_same_for_every_caption_of_a_clip(world) -> None:
    path = world.folder / "1-of-1.parquet"
    captioner = FakeCaptioner(echo)
    caption_shard(
        world.shard(), world.annotations, "unguided", captioner, path, captions_id=CAPTIONS_ID
    )
    merge(world, [path])
    captions = table.CaptionTable(world.folder / "merged.parquet")
    first, *others = (captions.for_caption(f"plain#{n}") for n in range(3))
    assert len(set(first)) == 3
    assert others == [first, first]
