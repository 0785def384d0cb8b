"""Times of the stages, from the workflow's benchmark files."""

from __future__ import annotations

from pathlib import Path

from discovla.report.summary import stage_times

HEAD = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


def test_jobs_of_a_stage_are_summed(tmp_path: Path) -> None:
    for name, seconds, memory in (("a", 10, 500), ("b", 30, 700)):
        path = tmp_path / "train" / f"{name}.tsv"
        path.parent.mkdir(exist_ok=True)
        line = f"{seconds}\t0\t{memory}\t0\t0\t0\t0\t0\t90\t{seconds * 2}\n"
        path.write_text(HEAD + line)
    (tmp_path / "world.tsv").write_text(HEAD + "5\t0\t-\t-\t-\t-\t-\t-\t-\t4\n")
    times = stage_times(tmp_path).set_index("stage")
    assert list(times.loc["train", ["jobs", "wall_s", "cpu_s", "peak_mb"]]) == [2, 40, 80, 700]
    assert times.loc["world", "cpu_s"] == 4
    assert list(times.index) == ["world", "train"]  # as the workflow goes, not by name
