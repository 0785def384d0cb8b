from __future__ import annotations

import pytest

from benchmarks.caption_table import CAPTIONS, FRAMES, main


@pytest.mark.slow
def test_every_step_is_done_on_a_small_table(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--clips", "70"])
    said = capsys.readouterr().out
    assert f"{70 * CAPTIONS * FRAMES:,} rows in 64 shards" in said
    for step in ("merge", "read randomly", "open for training", "open again", "compare"):
        assert f"\n{step} " in said
    assert "texts/s" in said
    assert "6,000 texts compared, all equal" in said
    assert "merged:" in said
