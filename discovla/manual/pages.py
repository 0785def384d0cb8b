"""Made parts of the manual as Markdown: they replace `<!-- made: NAME -->` in a page of docs/."""

from __future__ import annotations

import argparse
import itertools
import os
import re
from collections.abc import Callable, Sequence
from unittest import mock

from discovla.experiments import Experiments
from discovla.manual.plan import Work, whole, work
from discovla.manual.settings import FILES, Entry, file_settings, run_settings

MADE = re.compile(r"^<!-- made: (\w+) -->$", re.MULTILINE)


def fill(text: str) -> str:
    """A page with every made part in its place; `KeyError` for a part that nobody makes."""
    return MADE.sub(lambda match: PARTS[match[1]](), text)


def run_settings_part() -> str:
    """The settings of a run, a table per group."""
    lines = []
    for group, entries in itertools.groupby(run_settings(), key=lambda entry: entry.group):
        lines += [f"### {group}", ""]
        lines += _table(
            ("setting", "meaning", "allowed", "if not given", "in the run id", "given by config/"),
            [
                (
                    f"`{entry.name}`",
                    entry.meaning,
                    entry.allowed,
                    "must be" if entry.default is None else f"`{entry.default}`",
                    "yes" if entry.identity else "no",
                    entry.told(most=4) or "-",
                )
                for entry in entries
            ],
        )
    return "\n".join(lines)


def file_settings_part() -> str:
    """The keys of every file of `config/`, a table per file."""
    lines = []
    for schema, name in FILES.items():
        lines += [f"### config/{name}", ""]
        entries = file_settings(schema)
        shipped = any(entry.default is not None for entry in entries)
        head = ("key", "meaning", "allowed") + (("as shipped",) if shipped else ())
        lines += _table(head, [_key_cells(entry, shipped) for entry in entries])
    return "\n".join(lines)


def commands_part() -> str:
    """What `discovla --help` and every `discovla COMMAND --help` print, 100 columns wide."""
    from discovla.cli import build_parser

    parser = build_parser()
    (choices,) = [
        action for action in parser._actions if isinstance(action, argparse._SubParsersAction)
    ]
    helps = {action.dest: action.help for action in choices._choices_actions}
    with mock.patch.dict(os.environ, {"COLUMNS": "100", "NO_COLOR": "1"}):
        lines = ["```text", parser.format_help().rstrip(), "```", ""]
        for name, command in sorted(choices.choices.items()):
            lines += [f"## discovla {name}", "", f"{_sentence(helps[name])}", ""]
            lines += ["```text", command.format_help().rstrip(), "```", ""]
    return "\n".join(lines)


def plan_part() -> str:
    """The jobs of every table and figure, a table per dataset that the paper evaluates."""
    experiments = Experiments.load()
    lines = []
    for dataset in experiments.config["data"]:
        names = experiments.printed(dataset)
        if not names:
            continue
        found = [work(experiments, dataset, name) for name in names]
        found += [whole(experiments, dataset)] if len(names) > 1 else []
        lines += [f"### {experiments.dataset(dataset)['title']}", ""]
        head = ("target", "what it shows", "rows", "trained", "evaluated", "caption jobs")
        lines += _table((*head, "frame jobs"), [_work_cells(entry) for entry in found])
    return "\n".join(lines)


PARTS: dict[str, Callable[[], str]] = {
    "run_settings": run_settings_part,
    "file_settings": file_settings_part,
    "commands": commands_part,
    "plan": plan_part,
}


def _key_cells(entry: Entry, shipped: bool) -> tuple[str, ...]:
    cells = (f"`{entry.name}`", entry.meaning, entry.allowed)
    return (*cells, f"`{entry.default}`" if entry.default is not None else "") if shipped else cells


def _work_cells(entry: Work) -> tuple[str, ...]:
    rows = f"{entry.rows}" + (f" ({entry.quoted} quoted)" if entry.quoted else "")
    target = f"`{entry.target}`" if "/" in entry.target else entry.target
    numbers = (entry.trainings, entry.evaluations, entry.caption_shards, entry.frame_shards)
    return (target, entry.title, rows, *map(str, numbers))


def _sentence(text: str | None) -> str:
    text = (text or "").strip()
    return f"{text[:1].upper()}{text[1:]}".rstrip(".") + ("" if text.endswith("?") else ".")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [list(head), ["---"] * len(head), *map(list, rows)]
    return ["| " + " | ".join(map(_cell, line)) + " |" for line in lines] + [""]


def _cell(text: str) -> str:
    """Text that cannot end a cell, start HTML or be read as an image's address."""
    return text.replace("|", "\\|").replace("<", "&lt;")
