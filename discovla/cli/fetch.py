"""`discovla fetch`: bring what is public of the data and the weights."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from discovla.cli import _options
from discovla.errors import UserError

if TYPE_CHECKING:
    from discovla.data.download.sources import Source
    from discovla.experiments import Experiments

DESCRIPTION = """\
Bring annotations, videos, captions and weights that are public (config/sources.yaml), each into its
place. A download that was interrupted goes on where it stopped; what is there is not fetched again
and never replaced. What needs a registration is explained. Without a name: the list.
"""
EXAMPLE = """\
examples:
  discovla fetch --list
  discovla fetch msrvtt_annotations msrvtt_videos
  discovla fetch msrvtt_videos --to /big/disk/msrvtt
"""


def add_parser(subparsers: Any) -> None:
    """Register `fetch`."""
    parser = subparsers.add_parser(
        "fetch",
        help="bring public annotations, videos, captions and weights",
        description=DESCRIPTION,
        epilog=EXAMPLE,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to bring")
    parser.add_argument("--list", action="store_true", help="what there is, and what is here")
    parser.add_argument("--to", metavar="DIR", help="another folder than the configured one")
    _options.config(parser)
    parser.add_argument("--json", action="store_true", help="print the outcome to stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Bring everything named, also after one has failed; exit 0, or 1 with what to do by hand."""
    from discovla.data.download.sources import choose, load_sources
    from discovla.experiments import Experiments

    experiments = Experiments.load(folder=args.config_dir)
    sources = load_sources(args.config_dir)
    chosen = choose(sources, args.names or list(sources))
    if args.to and len({(source.dataset, source.folder) for source in chosen}) > 1:
        raise UserError("--to: name only sources that belong into one folder")
    if args.list or not args.names:
        outcomes = [_entry(source, experiments, args.to) for source in chosen]
        _show(outcomes, args.json)
        return 0
    outcomes, failures = [], []
    for source in chosen:
        try:
            outcomes.append(_bring(source, experiments, args.to))
        except UserError as problem:
            failures.append(str(problem))
    if args.json or outcomes:
        _show(outcomes, args.json)
    if failures:
        raise UserError("\n\n".join(failures))
    return 0


def _folder(source: Source, experiments: Experiments, to: str | None) -> Path:
    return Path(to or source.folder or experiments.root(str(source.dataset)))


def _entry(source: Source, experiments: Experiments, to: str | None) -> dict[str, Any]:
    """One line of the list."""
    from discovla.data.download.bring import look

    folder = _folder(source, experiments, to)
    captioner = experiments.captioner(source.captioner) if source.captioner else None
    state = look(source, folder, captioner)
    by_hand = not (source.ways or source.hub or captioner)
    return {
        "name": source.name,
        "what": source.what,
        "terms": source.terms,
        "folder": str(folder),
        "state": "by hand" if by_hand else state.word,
        "present": list(state.present),
        "missing": list(state.missing),
        "other": list(state.other),
    }


def _bring(source: Source, experiments: Experiments, to: str | None) -> dict[str, Any]:
    from discovla.data.download.bring import bring, bring_model

    folder = _folder(source, experiments, to)
    if source.captioner:
        entry = experiments.captioner(source.captioner)
        place = bring_model(entry, Path(to) if to else None)
        setting = {"captioner_path": {source.captioner: str(place)}} if to else {}
        outcome = {"name": source.name, "state": "present", "folder": str(place), "present": []}
        return {**outcome, "other": [], "set": _unset(setting, experiments)}
    state = bring(source, folder)
    setting = {"data": {str(source.dataset): to}} if to and source.dataset else {}
    if source.weights:
        setting["weights"] = {k: str(folder / name) for k, name in source.weights.items()}
    return {
        "name": source.name,
        "state": state.word,
        "folder": str(folder),
        "present": list(state.present),
        "other": list(state.other),
        "set": _unset(setting, experiments),
    }


def _unset(setting: Mapping[str, Any], experiments: Experiments) -> dict[str, Any]:
    """What of `setting` config/config.yaml does not say yet."""
    return {
        key: values
        for key, values in setting.items()
        if any(experiments.config[key].get(name) != value for name, value in values.items())
    }


def _show(outcomes: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(outcomes, ensure_ascii=False))
        return
    for outcome in outcomes:
        print(f"{outcome['name']:26}{outcome['state']:9}{outcome.get('what') or outcome['folder']}")
        if outcome["other"]:
            print(f"{'':35}not the published bytes, left as they are: {outcome['other']}")
        for key, values in outcome.get("set", {}).items():
            pairs = ", ".join(f"{name}: {value}" for name, value in values.items())
            print(f"{'':35}now set in config/config.yaml:  {key}: {{{pairs}}}")
