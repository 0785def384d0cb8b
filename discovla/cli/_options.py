"""Options that several commands have: one name, one form and one meaning for each."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

DEVICES = "auto (CUDA if there is any), cpu, cuda, cuda:N"


def device(parser: ArgumentParser) -> None:
    """`--device`: where a model computes."""
    parser.add_argument("--device", default="auto", metavar="NAME", help=DEVICES)


def config(parser: ArgumentParser, *, overlay: bool = False) -> None:
    """`--config-dir`, and `--configfile` where Snakemake's option of this name can matter."""
    add = parser.add_argument
    folder = "folder of the settings; default: %(default)s"
    add("--config-dir", type=Path, default=Path("config"), metavar="DIR", help=folder)
    if overlay:
        add("--configfile", metavar="FILE", help="laid over config.yaml, as Snakemake's option")


def run_config(parser: ArgumentParser) -> None:
    """`--config`: what one run is."""
    parser.add_argument("--config", required=True, metavar="FILE", help="config.json of the run")


def adapter(parser: ArgumentParser) -> None:
    """`--adapter`: what its training has made."""
    parser.add_argument("--adapter", metavar="FILE", help="trained tensors; none for zero-shot")


def annotations_file(parser: ArgumentParser) -> None:
    """`--annotations`: what `discovla annotations` has written."""
    text = "canonical annotations (.parquet)"
    parser.add_argument("--annotations", required=True, type=Path, metavar="FILE", help=text)


def frames_folder(parser: ArgumentParser, *, required: bool = True, note: str = "") -> None:
    """`--frames`: what `discovla sample-frames` has written."""
    text = f"folder of the frame store{note}"
    parser.add_argument("--frames", required=required, type=Path, metavar="DIR", help=text)


def timeout(parser: ArgumentParser, seconds: float) -> None:
    """`--timeout`: of the process that decodes."""
    text = "seconds to decode one video; default: %(default)g"
    parser.add_argument("--timeout", type=float, default=seconds, metavar="S", help=text)


def workers(parser: ArgumentParser) -> None:
    """`--workers`: of torch's loader."""
    text = "loader processes; %(default)s, changes no result"
    parser.add_argument("--workers", type=int, default=0, metavar="N", help=text)


def allow_missing(parser: ArgumentParser) -> None:
    """`--allow-missing`: go on without some clips."""
    text = "leave clips without frames out (listed in the metadata of the result)"
    parser.add_argument("--allow-missing", action="store_true", help=text)


def as_json(parser: ArgumentParser) -> None:
    """`--json`: what is found as JSON, and nothing else, on stdout."""
    parser.add_argument("--json", action="store_true", help="print JSON to stdout")
