"""`discovla metrics`: files in, table or JSON out, clear refusals."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from discovla.cli import metrics as command
from discovla.errors import UserError
from discovla.retrieval.evaluate import evaluate_matrix
from discovla.retrieval.metrics import Array

Run = Callable[..., int]


@pytest.fixture(scope="module")
def run() -> Run:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers(dest="command"))

    def call(*arguments: Any) -> int:
        args = parser.parse_args(["metrics", *map(str, arguments)])
        return int(args.run(args))

    return call


@pytest.fixture
def arrays(tmp_path: Path) -> dict[str, Array]:
    generator = np.random.default_rng(0)
    found = {"sim": generator.uniform(-0.1, 0.4, (20, 20)).astype(np.float32)}
    found["sim"] += 0.1 * np.eye(20, dtype=np.float32)
    found["bank"] = generator.uniform(-0.1, 0.4, (90, 20)).astype(np.float32)
    for name, array in found.items():
        np.save(tmp_path / f"{name}.npy", array)
    return found


def test_json_is_the_object_of_the_library(
    run: Run, tmp_path: Path, arrays: dict[str, Array], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "sim.npy", "--json") == 0
    assert json.loads(capsys.readouterr().out) == evaluate_matrix(arrays["sim"])


def test_logits_with_a_bank(
    run: Run, tmp_path: Path, arrays: dict[str, Array], capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "both.npz", test_sims=arrays["sim"] * 64, bank_sims=arrays["bank"] * 64)
    both = tmp_path / "both.npz"
    options = ["--post", "qbnorm", "--units", "logits", "--logit-scale", 64, "--beta", 20]
    assert run(both, "--bank", both, *options, "--k", 2, "--theta", 3, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    expected = evaluate_matrix(
        arrays["sim"], post="qbnorm", bank=arrays["bank"], beta=20.0, k=2, theta=3
    )
    assert found == expected
    assert found["v2t"] is None


def test_the_table_is_aligned_and_says_what_was_done(
    run: Run, tmp_path: Path, arrays: dict[str, Array], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "sim.npy", "--post", "dsl", "--temperature", 0.01) == 0
    lines = capsys.readouterr().out.splitlines()
    expected = evaluate_matrix(arrays["sim"], post="dsl", temperature=0.01)
    assert lines[0].split() == [*expected["t2v"], "queries", "tied"]
    assert lines[1].split()[:2] == ["t2v", f"{expected['t2v']['R@1']:.2f}"]
    assert len({len(line) for line in lines[:3]}) == 1
    assert "dsl: temperature 0.01 (on cosine)" in lines
    assert "not comparable" in lines[-1]


def test_the_output_file_is_written_and_stdout_stays_empty(
    run: Run, tmp_path: Path, arrays: dict[str, Array], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "sim.npy", "--output", tmp_path / "out" / "metrics.json") == 0
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written == evaluate_matrix(arrays["sim"])
    assert capsys.readouterr().out == ""


def test_truth_and_key(
    run: Run, tmp_path: Path, arrays: dict[str, Array], capsys: pytest.CaptureFixture[str]
) -> None:
    wide, truth = np.repeat(arrays["sim"], 2, axis=0), np.repeat(np.arange(20), 2)
    np.savez(tmp_path / "some.npz", first=wide, second=arrays["sim"])
    np.save(tmp_path / "truth.npy", truth)
    run(tmp_path / "some.npz", "--key", "first", "--truth", tmp_path / "truth.npy", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found == evaluate_matrix(wide, truth=truth)
    assert found["n_queries_t2v"] == 40


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("sim", "sims"), "several could be meant; it holds: sim, sims"),
        (("a", "b"), "none of the expected names; it holds: a, b"),
    ],
)
def test_an_ambiguous_npz_is_refused(
    run: Run, tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    np.savez(tmp_path / "some.npz", **{name: np.eye(3) for name in names})  # type: ignore[arg-type]
    with pytest.raises(UserError, match=message):
        run(tmp_path / "some.npz")
    with pytest.raises(UserError, match="no array 'c'; it holds"):
        run(tmp_path / "some.npz", "--key", "c")


def test_pickles_are_not_opened(run: Run, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    np.save(tmp_path / "objects.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"not a \.npy or \.npz file of plain numbers"):
        run(tmp_path / "objects.npy")
    np.savez(tmp_path / "objects.npz", np.array([Trap()], dtype=object), allow_pickle=True)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="plain numbers"):
        run(tmp_path / "objects.npz", "--key", "arr_0")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "plain numbers"), (b"text", "plain numbers"), (None, "no such file")],
)
def test_other_files_are_refused(
    run: Run, tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "sim.npy"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        run(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--post", "qbnorm", "--units", "logits", "--bank", "bank.npy"], "give the logit scale"),
        (["--post", "qbnorm"], "needs a bank"),
        (["--post", "qbnorm", "--bank", "sim.npy", "--beta", "0"], "beta > 0"),
        (["--post", "dsl", "--temperature", "1", "--k", "2"], "no parameter k"),
        (["--post", "qbnorm", "--bank", "narrow.npy"], r"\(5, 3\), but the gallery has 20"),
        (["--post", "qbnorm", "--bank", "x.safetensors"], "goes with --features"),
        (["--truth", "bank.npy"], "truth: shape"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    run: Run,
    tmp_path: Path,
    arrays: dict[str, Array],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    message: str,
) -> None:
    np.save(tmp_path / "narrow.npy", np.zeros((5, 3)))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        run("sim.npy", *options)


def test_a_matrixs_options_do_not_go_with_features(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--logit-scale goes with a matrix"):
        run("--features", tmp_path / "f.safetensors", "--logit-scale", 100)


@pytest.mark.parametrize("arguments", [[], ["sim.npy", "--features", "f"], ["s", "--post", "x"]])
def test_usage_errors(run: Run, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    assert stopped.value.code == 2


def test_evaluation_needs_no_torch() -> None:
    code = (
        "import sys, discovla.retrieval.evaluate, discovla.cli.metrics; "
        "sys.exit(bool({'torch', 'pandas', 'transformers', 'open_clip'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
