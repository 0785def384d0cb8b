"""Every command of the documentation is run, or read by the parser of the program that it names."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from discovla.experiments import Experiments
from tests.docs.commands import Wrong, check, commands, filled, named, simple
from tests.docs.pages import CHEAP, ROOT, Block, blocks, inline_code, pages
from tests.docs.place import place, run_block, with_examples
from tests.workflow.run import snakemake

PAGES = {path.relative_to(ROOT).as_posix(): path for path in pages()}
SHELLS = ("bash", "sh", "shell", "console")
#: Languages of blocks without commands; `{name}` is a directive of the manual.
OTHERS = ("text", "yaml", "json", "csv", "python", "html", "toml", "latex", "bibtex", "ini", "diff")


def shell_blocks(path: Path) -> list[Block]:
    return [block for block in blocks(path) if block.language in SHELLS]


@pytest.fixture(scope="module")
def experiments(workspace: Path) -> Experiments:
    return Experiments.load(folder=workspace / "config")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return place(tmp_path_factory.mktemp("docs"))


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_what_it_is(page: str) -> None:
    for block in blocks(PAGES[page]):
        known = block.language in (*SHELLS, *OTHERS) or block.language.startswith("{")
        assert known, f"{block}: {block.language or 'no language'}; known: {SHELLS + OTHERS}"


@pytest.mark.parametrize("page", PAGES)
def test_data_and_code_of_a_page_can_be_read(page: str) -> None:
    for block in blocks(PAGES[page]):
        if block.language == "yaml":
            list(yaml.safe_load_all(block.text))
        elif block.language == "json":
            json.loads(block.text)
        elif block.language == "python":
            compile(block.text, str(block), "exec")


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_what_their_programs_take(page: str) -> None:
    for block in shell_blocks(PAGES[page]):
        for words in commands(block):
            try:
                check(words)
            except Wrong as wrong:
                pytest.fail(f"{block}: {wrong}")


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_the_text_exist(page: str) -> None:
    for line, text in inline_code(PAGES[page]):
        if re.match(r"(discovla|snakemake|make|python -m) ", text):
            try:
                named(text)
            except Wrong as wrong:
                pytest.fail(f"{page}:{line}: {wrong}")


@pytest.mark.slow
def test_targets_can_be_planned(tmp_path: Path, experiments: Experiments) -> None:
    """One plan for all pages: a target that no rule makes is named."""
    found = set()
    for path in PAGES.values():
        for block in shell_blocks(path):
            found |= {target for words in commands(block) for target in check(words)}
        for _, text in inline_code(path):
            if text.startswith("snakemake "):
                found |= set(named(text))
    targets = sorted({filled(target, experiments) for target in found})
    assert len(targets) > 10
    # One job may serve several; a rule that needs real data is planned without it.
    planned = snakemake(with_examples(place(tmp_path)), *targets, "-n", "--quiet", "rules")
    assert planned.returncode == 0, planned.stdout[-3000:]


@pytest.mark.slow
def test_cheap_commands_run(workspace: Path) -> None:
    """Block by block in the order of the pages, in a folder as after `git clone`, without data."""
    cheap = [
        block
        for path in PAGES.values()
        for block in shell_blocks(path)
        if block.when == CHEAP and block.language != "console"
    ]
    assert cheap
    for block in cheap:
        ran = run_block(block, workspace)
        assert ran.returncode == 0, f"{block}:\n{block.text}\n{ran.stdout[-3000:]}"


def test_lines_are_split_as_a_shell_does() -> None:
    line = "A=1 cat x.csv | column -s, -t 2>&1 > 'a b' && discovla runs  # all"
    assert list(simple(line)) == [["cat", "x.csv"], ["column", "-s,", "-t"], ["discovla", "runs"]]


@pytest.mark.parametrize(
    "line",
    [
        "discovla nosuch",
        "discovla check msrvtt --fulll",
        "discovla train --seed 1",
        "snakemake --coresss 1",
        "snakemake all --cores 2 --configfile config/nosuch.yaml",
        "make nosuch",
        "python -m benchmarks.nosuch",
        "python -m benchmarks.planning --nosuch",
        "torchrun --nproc-per-node 2 -m discovla train --nosuch",
        "some output of a program",
    ],
)
def test_wrong_commands_are_found(line: str) -> None:
    (words,) = simple(line)
    with pytest.raises(Wrong):
        check(words)


@pytest.mark.parametrize(
    "text", ["discovla nosuch FILE", "discovla check X --nosuch", "make nosuch"]
)
def test_wrong_inline_commands_are_found(text: str) -> None:
    with pytest.raises(Wrong):
        named(text)


def test_ids_stand_in_for_their_names(experiments: Experiments) -> None:
    found = filled("results/demo/runs/{run_id}/seed{seed}/features.test.safetensors", experiments)
    assert re.fullmatch(r"results/demo/runs/discovla-demo-clip-\w{10}/seed0/features.*", found)


def test_a_failing_block_is_seen(tmp_path: Path) -> None:
    block = Block("x.md", 1, "bash", "false\ntrue\n", CHEAP)
    assert run_block(block, tmp_path).returncode != 0
