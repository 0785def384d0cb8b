"""The command line itself: what may stand where, and what a wrong word is answered with."""

from __future__ import annotations

import itertools

import pytest

from discovla.cli import build_parser


@pytest.mark.parametrize("words", list(itertools.permutations(["INDEX TEXT", "--top 5", "--json"])))
def test_the_text_of_a_search_stands_anywhere(words: tuple[str, ...]) -> None:
    flat = [word for part in words for word in part.split()]
    for order in (flat, _apart(flat)):
        args = build_parser().parse_args(["search", *order])
        assert (args.index.name, args.text, args.top, args.json) == ("INDEX", "TEXT", 5, True)


def _apart(words: list[str]) -> list[str]:
    """The same with the text as the last word of all, behind every option."""
    return [*(word for word in words if word != "TEXT"), "TEXT"]


def test_a_search_needs_no_text_and_takes_one_like_an_option() -> None:
    assert build_parser().parse_args(["search", "--like", "a.mp4", "INDEX"]).text is None
    assert build_parser().parse_args(["search", "INDEX", "--json", "--", "-5 men"]).text == "-5 men"


def test_a_word_too_many_is_answered_with_the_usage_of_the_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for line in ("search INDEX a man", "serve INDEX --bogus", "metrics a.npy b.npy"):
        with pytest.raises(SystemExit) as stopped:
            build_parser().parse_args(line.split())
        assert stopped.value.code == 2
        said = capsys.readouterr().err
        assert said.startswith(f"usage: discovla {line.split()[0]} ")
        assert f"unrecognized arguments: {line.split()[-1]}" in said


@pytest.mark.parametrize(
    ("line", "told"),
    [("runs", False), ("-v runs", True), ("runs -v", True), ("search -v INDEX TEXT", True)],
)
def test_more_is_logged_wherever_one_asks_for_it(line: str, told: bool) -> None:
    assert build_parser().parse_args(line.split()).verbose is told
