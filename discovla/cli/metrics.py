"""`discovla metrics`: recalls and ranks of anybody's similarity matrix, or of stored features."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from discovla.cli import _options
from discovla.errors import UserError

DESCRIPTION = """\
Rank in both directions and print R@1, R@5, R@10, their sum, median and mean rank.

The matrix has one row per caption and one column per video. If it is square, row i belongs to
column i; otherwise --truth gives the column of each row. Its scores are cosines, or logits =
cosine * logit scale; --post dsl and qbnorm need to know, because their parameters are in units of
cosine. On logits they therefore need --logit-scale (100 for CLIP).
"""
EXAMPLE = """\
examples:
  discovla metrics sim.npy
  discovla metrics sim.npy --post dsl --units logits --logit-scale 100
  discovla metrics sim.npy --post qbnorm --bank bank.npy --beta 50 --json
  discovla metrics --features features.test.safetensors --post qbnorm \\
      --bank features.bank.safetensors --output metrics.qbnorm.json

DSL uses all queries together and their one-to-one prior: it is not comparable with plain numbers.
With --post qbnorm, video-to-text needs --video-bank and is left out without it.
"""
PARAMETERS = ("temperature", "beta", "k", "theta")


def add_parser(subparsers: Any) -> None:
    """Register `metrics`."""
    parser = subparsers.add_parser(
        "metrics",
        help="similarity matrix or features → recalls and ranks",
        description=DESCRIPTION,
        epilog=EXAMPLE,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("sim", nargs="?", metavar="SIM", help=".npy or .npz, captions in rows")
    source.add_argument("--features", metavar="FILE", help="features of a run (.safetensors)")
    parser.add_argument("--key", help="array to take from a .npz with several")
    parser.add_argument("--truth", metavar="FILE", help=".npy: column of each row's own video")
    parser.add_argument("--units", choices=("cosine", "logits"), help="default: cosine")
    parser.add_argument("--logit-scale", type=float, metavar="X", help="exp(logit_scale)")
    parser.add_argument(
        "--post", choices=("none", "dsl", "qbnorm"), default="none", help="default: %(default)s"
    )
    parser.add_argument(
        "--bank",
        metavar="FILE",
        help="qbnorm: training captions x videos (.npy, .npz), or their features (.safetensors)",
    )
    parser.add_argument(
        "--video-bank", metavar="FILE", help="qbnorm, v2t: training videos x captions (.npy, .npz)"
    )
    parser.add_argument(
        "--temperature", type=float, help="dsl: T on cosine (default: 1 / logit scale)"
    )
    parser.add_argument("--beta", type=float, help="qbnorm: inverse temperature on cosine (50)")
    parser.add_argument("--k", type=int, help="qbnorm: items that a bank query activates (1)")
    parser.add_argument("--theta", type=int, help="qbnorm: hits that make an item active (1)")
    parser.add_argument(
        "--ties",
        choices=("average", "optimistic", "pessimistic", "popular"),
        default="average",
        help="rule for equal scores; popular = the released code's (default: %(default)s)",
    )
    _options.as_json(parser)
    parser.add_argument("--output", metavar="FILE", help="write the JSON to this file")
    parser.set_defaults(run=metrics)


def metrics(args: argparse.Namespace) -> int:
    """Measure, write and print."""
    found = _of_features(args) if args.features else _of_matrix(args)
    if args.output:
        from discovla.storage.files import write_json

        write_json(args.output, found)
    if args.json:
        json.dump(found, sys.stdout, indent=1, ensure_ascii=False, allow_nan=False)
        print()
    elif not args.output:
        print(as_text(found))
    return 0


def _parameters(args: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(args, name) for name in PARAMETERS if getattr(args, name) is not None}


def _of_matrix(args: argparse.Namespace) -> dict[str, Any]:
    from discovla.retrieval.evaluate import evaluate_matrix
    from discovla.retrieval.stored import BANK_KEYS, SIM_KEYS, TRUTH_KEYS, load_array

    for path in (args.bank, args.video_bank):
        if path and path.endswith(".safetensors"):
            raise UserError(f"{path}: a bank of features goes with --features, not with a matrix")
    return evaluate_matrix(
        load_array(args.sim, SIM_KEYS, args.key),
        post=args.post,
        truth=load_array(args.truth, TRUTH_KEYS) if args.truth else None,
        units=args.units or "cosine",
        logit_scale=args.logit_scale,
        ties=args.ties,
        bank=load_array(args.bank, BANK_KEYS) if args.bank else None,
        video_bank=load_array(args.video_bank, BANK_KEYS) if args.video_bank else None,
        **_parameters(args),
    )


def _of_features(args: argparse.Namespace) -> dict[str, Any]:
    from discovla.retrieval.evaluate import evaluate_features

    for name in ("truth", "units", "logit_scale", "key", "video_bank"):
        if getattr(args, name) is not None:
            raise UserError(
                f"--{name.replace('_', '-')} goes with a matrix; a features file holds its own "
                "truth and logit scale"
            )
    return evaluate_features(
        args.features, args.bank, post=args.post, ties=args.ties, **_parameters(args)
    )


def as_text(found: dict[str, Any]) -> str:
    """An aligned table with two decimals, the post-processing and the ties below it."""
    lines = [(d, found[d], found[f"n_queries_{d}"], found["ties"][d]) for d in ("t2v", "v2t")]
    lines += [(f"{d} (released rule)", m, "", "") for d, m in found.get("released", {}).items()]
    shown = [line for line in lines if line[1] is not None]
    names = list(shown[0][1])
    rows = [["", *names, "queries", "tied"]]
    rows += [[d, *(f"{m[n]:.2f}" for n in names), str(q), str(t)] for d, m, q, t in shown]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    text = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    ]
    post = found["post"]
    if post["name"] != "none":
        values = ", ".join(f"{name} {value:g}" for name, value in post["params"].items())
        text += ["", f"{post['name']}: {values} (on cosine)"]
    if post["transductive"]:
        text += ["All queries were used together: not comparable with plain numbers."]
    if found["v2t"] is None:
        text += ["v2t: not measured (it needs --video-bank)."]
    return "\n".join(text)
