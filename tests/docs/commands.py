"""Checking commands without running them: each program's own parser reads its arguments."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock

from discovla.cli import build_parser
from discovla.experiments import Experiments
from tests.docs.pages import ROOT, Block

CONTROL = ("&&", "||", "|", ";", "&", "(", ")", ";;")
#: Shell words that may stand before a command.
SHELL = ("do", "done", "then", "fi", "else", "if", "while", "until", "!", "time", "exec")
#: Programs of others, whose arguments are their own business.
KNOWN = {
    *(".", "cat", "cd", "chmod", "cp", "cut", "df", "du", "echo", "exit", "export", "for", "grep"),
    *("head", "hostname", "kill", "less", "ln", "ls", "mkdir", "mv", "rm", "sed", "seq", "set"),
    *("sleep", "sort", "source", "tail", "tar", "tee", "test", "touch", "tr", "tree", "true"),
    *("ulimit", "umask", "unset", "unzip", "wait", "wc", "which", "xdg-open", "column", "nohup"),
    *("apt-get", "conda", "curl", "git", "mamba", "pip", "rsync", "ssh", "sudo", "tmux", "uv"),
    *("sacct", "sacctmgr", "salloc", "sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun"),
    *("apptainer", "docker", "podman", "nvidia-smi", "tensorboard", "vllm", "ffmpeg", "df"),
}
#: Modules whose `python -m` is theirs.
MODULES = ("pytest", "pip", "venv", "sglang", "vllm", "http", "json", "torch")


class Wrong(AssertionError):
    """A command that would not work as it stands."""


class _Parsed(BaseException):
    """Raised in place of running, after a program's own parser has read its arguments."""


def commands(block: Block) -> Iterator[list[str]]:
    """The simple commands of a block as words; raise `Wrong` where bash cannot read it."""
    text = block.text
    if block.language == "console":
        text = "\n".join(
            line[2:] for line in block.text.splitlines() if line.startswith(("$ ", "> "))
        )
    read = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    if read.returncode:
        raise Wrong(f"{block}: bash cannot read it: {read.stderr.strip()}")
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        yield from simple(line)


def simple(line: str) -> Iterator[list[str]]:
    """The simple commands of one line, without redirections, assignments and comments."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    skip = False
    for word in [*lexer, ";"]:
        if word in CONTROL:
            if words:
                yield words
            words = []
        elif skip:
            skip = False
        elif re.fullmatch(r"[<>]+&?", word):
            skip = True
            if words and words[-1].isdigit():
                words.pop()  # 2>&1
        elif not words and (re.fullmatch(r"\w+=.*", word) or word in SHELL):
            continue
        else:
            words.append(word)


def check(words: Sequence[str]) -> list[str]:
    """Let a command's own parser read it; return the Snakemake targets that it asks for.

    Raises:
        Wrong: saying what its parser said, or that the program is not known here.
    """
    program, rest = words[0].rpartition("/")[2], list(words[1:])
    if program == "discovla":
        _parse(build_parser(), rest, words)
    elif program == "snakemake":
        return _snakemake(rest, words)
    elif program == "make":
        _make(rest, words)
    elif program == "torchrun":
        from torch.distributed.run import get_args_parser

        found = _parse(get_args_parser(), rest, words)
        if found.module:
            check(["python", "-m", found.training_script, *found.training_script_args])
    elif program in ("python", "python3") and rest[:1] == ["-m"]:
        _module(rest[1], rest[2:], words)
    elif program in ("python", "python3") and rest[:1] == ["-c"]:
        compile(rest[1], "-c", "exec")
    elif program not in KNOWN and program != "python":
        raise Wrong(
            f"{' '.join(words)}: {program} is not known to tests/docs/commands.py. If this is no "
            "command, the block's language should say so (text, console)"
        )
    return []


def named(text: str) -> list[str]:
    """Check an inline command loosely: the program's command and its options exist."""
    text = re.sub(r"…|\.\.\.|[][]", " ", text)
    try:
        words = shlex.split(text)
    except ValueError:
        return []
    options = [word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)]
    if words[0] == "discovla" and len(words) > 1 and not words[1].startswith("-"):
        if re.fullmatch(r"[A-Z]+", words[1]):
            return []
        known = _commands().get(words[1])
        if known is None:
            raise Wrong(f"`{text}`: there is no command {words[1]}")
        for option in options:
            if option not in known:
                raise Wrong(f"`{text}`: discovla {words[1]} has no {option}")
    elif words[:1] == ["make"] and len(words) > 1:
        _make(words[1:], words)
    elif words[:2] == ["python", "-m"] and len(words) > 2:
        top = words[2].split(".")[0]
        if top in ("discovla", "benchmarks", "tests") and not importlib.util.find_spec(words[2]):
            raise Wrong(f"`{text}`: there is no module {words[2]}")
    elif words[0] == "snakemake":
        return [word for word in _snakemake(words[1:], words) if not re.search("[A-Z]{3}", word)]
    return []


def _commands() -> dict[str, set[str]]:
    """The options of every command."""
    (choices,) = [
        action
        for action in build_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    ]
    return {
        name: {option for action in parser._actions for option in action.option_strings}
        for name, parser in choices.choices.items()
    }


def _parse(
    parser: argparse.ArgumentParser, rest: Sequence[str], words: Sequence[str]
) -> argparse.Namespace:
    heard = io.StringIO()
    try:
        with contextlib.redirect_stderr(heard), contextlib.redirect_stdout(io.StringIO()):
            return parser.parse_args(list(rest))
    except SystemExit as stop:
        if stop.code in (0, None):  # --help
            return argparse.Namespace(module=False)
        raise Wrong(f"{' '.join(words)}: {heard.getvalue().strip().splitlines()[-1]}") from None


def _snakemake(rest: Sequence[str], words: Sequence[str]) -> list[str]:
    from snakemake.cli import parse_args

    heard = io.StringIO()
    try:
        with contextlib.redirect_stderr(heard), contextlib.chdir(ROOT):
            _, found = parse_args(list(rest))
    except SystemExit as stop:
        if stop.code in (0, None):
            return []
        raise Wrong(f"{' '.join(words)}: {heard.getvalue().strip().splitlines()[-1]}") from None
    for path in found.configfile or ():
        if not (ROOT / path).exists():
            raise Wrong(f"{' '.join(words)}: there is no {path}")
    return list(found.targets)


def _make(rest: Sequence[str], words: Sequence[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for word in rest:
        if "=" not in word and not word.startswith("-") and word not in targets:
            raise Wrong(f"{' '.join(words)}: the Makefile has no target {word}")


def _module(name: str, rest: Sequence[str], words: Sequence[str]) -> None:
    """A module of this repository up to the point where its own parser has read the arguments."""
    if name.split(".")[0] in MODULES:
        return
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise Wrong(f"{' '.join(words)}: there is no module {name}")
    if name == "discovla":
        _parse(build_parser(), rest, words)
        return
    if spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{name}.__main__")
    if spec is None or spec.origin is None or "parse_args(" not in Path(spec.origin).read_text():
        return  # takes no arguments: nothing to check, and it must not run
    parse = argparse.ArgumentParser.parse_args

    def parsed(parser: argparse.ArgumentParser, args=None, namespace=None) -> None:  # type: ignore[no-untyped-def]
        _parse_with(parse, parser, words)
        raise _Parsed

    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", parsed),
        mock.patch.object(sys, "argv", [name, *rest]),
        contextlib.suppress(_Parsed),
    ):
        runpy.run_module(name, run_name="__main__", alter_sys=False)


def _parse_with(parse, parser: argparse.ArgumentParser, words: Sequence[str]) -> None:  # type: ignore[no-untyped-def]
    heard = io.StringIO()
    try:
        with contextlib.redirect_stderr(heard), contextlib.redirect_stdout(io.StringIO()):
            parse(parser, sys.argv[1:])
    except SystemExit as stop:
        if stop.code not in (0, None):
            last = heard.getvalue().strip().splitlines()[-1]
            raise Wrong(f"{' '.join(words)}: {last}") from None


def filled(text: str, experiments: Experiments) -> str:
    """A path of a page with real ids in the place of `{run_id}`, `{captions_id}`, RUN and so on.

    They are those of the row DiscoVLA of Table 5, on the dataset that the path names.
    """
    match = re.search(r"(?:results|resources|logs)/([a-z0-9_-]+)/", text)
    dataset = match[1] if match and match[1] in experiments.datasets else "msrvtt"
    run = experiments.row(dataset, "table5", "discovla").run
    assert run is not None
    ids = {
        "run_id": run.run_id,
        "RUN": run.run_id,
        "captions_id": str(run.captions_id),
        "frames_id": run.frames_id,
        "dataset": dataset,
        "seed": str(experiments.seeds(dataset)[0]),
    }
    for name, value in ids.items():
        text = text.replace(f"{{{name}}}", value)
        if name.isupper():
            text = re.sub(rf"\b{name}\b", value, text)
    return text
