"""`discovla caption` and `discovla merge-captions`: pseudo captions of the training frames."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from discovla.cli import _options
from discovla.errors import UserError
from discovla.storage.dates import check_dates

if TYPE_CHECKING:
    from discovla.captioning.engine import Captioner

log = logging.getLogger(__name__)

_CAPTION = """\
Only clips of the training split are captioned. Finished work is kept in OUTPUT.parts/ while the
command runs, so that an interrupted one goes on where it was when it is started again.

examples:
  discovla caption --frames resources/demo/frames/ID/1-of-2.arrow \\
    --annotations resources/demo/annotations.parquet --captions-id 0123456789 --kind guided \\
    --model discovla/demo/weights/llava --dtype fp32 --batch-size 128 \\
    --output results/demo/captions/0123456789/1-of-2.parquet
  discovla caption --frames 1-of-8.arrow --annotations annotations.parquet \\
    --captions-id 0123456789 --kind guided --engine server --url http://localhost:8000/v1 \\
    --concurrency 64 --output 1.parquet
  discovla caption --frames 1-of-8.arrow --annotations annotations.parquet \\
    --captions-id 0123456789 --kind released --released released_captions.json --output 1.parquet
"""
_MERGE = """\
Fails, naming the first five, if a (caption, frame) pair of the training split is missing.

example:
  discovla merge-captions --shards results/demo/captions/0123456789 \\
    --annotations resources/demo/annotations.parquet --captions-id 0123456789 \\
    --output results/demo/captions/0123456789.parquet
"""


def add_parser(subparsers: Any) -> None:
    """Register `caption` and `merge-captions`."""
    parser = subparsers.add_parser(
        "caption",
        help="write pseudo captions for the training frames of one shard (§3.4)",
        description="Ask LLaVA-NeXT for a caption of every training frame of one shard (§3.4), or "
        "take the authors' captions.",
        epilog=_CAPTION,
    )
    _add_common(parser)
    parser.add_argument(
        "--frames", type=Path, required=True, metavar="SHARD.arrow", help="shard of frames"
    )
    parser.add_argument(
        "--kind",
        choices=("guided", "unguided", "released"),
        required=True,
        help="prompt with or without the video caption, or the authors' captions",
    )
    parser.add_argument("--model", help="Hugging Face id or folder of a LLaVA-NeXT model")
    parser.add_argument("--revision", help="branch, tag or commit of a Hugging Face id")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32", help="arithmetic")
    parser.add_argument(
        "--batch-size",
        type=_batch_size,
        metavar="N|auto",
        help="captions generated together at most (default: auto, as many as memory allows)",
    )
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        default=40,
        metavar="N",
        help="tokens of the longest answer (default: %(default)s)",
    )
    parser.add_argument(
        "--words",
        type=int,
        default=32,
        metavar="N",
        help="CLIP's tokens of a text, both marks included; an answer that is cut off before it "
        "has as many is asked for once more (default: %(default)s)",
    )
    _options.device(parser)
    _add_answers(parser)
    _add_server(parser)
    parser.add_argument(
        "--released", type=Path, metavar="JSON", help="the authors' file, for --kind released"
    )
    parser.set_defaults(run=run_caption)

    parser = subparsers.add_parser(
        "merge-captions",
        help="join the shards of pseudo captions and check that none is missing",
        description="Join the shards of pseudo captions into one table, checking every row.",
        epilog=_MERGE,
    )
    _add_common(parser)
    parser.add_argument("files", nargs="*", type=Path, metavar="SHARD", help="shards, one by one")
    parser.add_argument(
        "--shards", type=Path, metavar="DIR", help="folder with all shards, N-of-M.parquet"
    )
    parser.set_defaults(run=run_merge)


def _batch_size(text: str) -> int | None:
    if text == "auto" or text.isdecimal():
        return None if text == "auto" else int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor auto")


def _add_answers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--grid",
        choices=("processor", "single"),
        default="processor",
        help="tiles of an image: as the model was made with, or one (926 to 1,026 tokens)",
    )
    parser.add_argument(
        "--sample-seed", type=int, metavar="SEED", help="draw the words (default: greedy)"
    )
    parser.add_argument(
        "--temperature", type=float, help="flatter above 1; with --sample-seed (default: 1)"
    )
    parser.add_argument(
        "--top-p",
        type=float,
        metavar="P",
        help="share of the likeliest words that is drawn from; with --sample-seed (default: 1)",
    )


def _add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine",
        choices=("transformers", "server"),
        default="transformers",
        help="answer here, or ask a server (vLLM, SGLang, transformers serve; default: here)",
    )
    parser.add_argument("--url", help="of the server, as http://localhost:8000/v1")
    parser.add_argument(
        "--concurrency",
        type=int,
        default=16,
        metavar="N",
        help="requests to the server at the same time (default: %(default)s)",
    )
    parser.add_argument(
        "--api-key-env", metavar="NAME", help="environment variable with the server's key"
    )


def _add_common(parser: argparse.ArgumentParser) -> None:
    _options.annotations_file(parser)
    parser.add_argument("--captions-id", required=True, metavar="ID", help="identity of the table")
    parser.add_argument("--output", type=Path, required=True, metavar="PARQUET")


def run_caption(args: argparse.Namespace) -> int:
    """Caption one shard, unless another process does."""
    check_dates(args.frames, args.annotations)
    from discovla.captioning import table
    from discovla.interruption import done
    from discovla.storage.lease import hold

    # Before the model is loaded: a process that waits needs no GPU.
    with hold(args.output) as lease:
        if not lease.made_meanwhile(lambda: table.check_identity(args.output, args.captions_id)):
            _caption(args)
            done()
    return 0


def _caption(args: argparse.Namespace) -> None:
    _refuse_idle(args)
    if args.kind == "released":
        if args.released is None:
            raise UserError("--kind released needs --released JSON, the authors' file")
        from discovla.captioning.released import released_shard

        released_shard(
            args.released, args.frames, args.annotations, args.output, captions_id=args.captions_id
        )
        return
    if args.engine == "server":
        if args.url is None:
            raise UserError("--engine server needs --url, as http://localhost:8000/v1")
    elif args.model is None:
        raise UserError(f"--kind {args.kind} needs --model, a folder or a Hugging Face id")
    from discovla.captioning.run import caption_shard, check_inputs

    # Before a model is loaded, which takes a minute.
    check_inputs(args.frames, args.annotations, args.words)
    caption_shard(
        args.frames,
        args.annotations,
        args.kind,
        _served(args) if args.engine == "server" else _loaded(args),
        args.output,
        captions_id=args.captions_id,
        words=args.words,
    )


def _refuse_idle(args: argparse.Namespace) -> None:
    """`UserError` for an option that would change nothing."""
    draws = {
        "--sample-seed": args.sample_seed is not None,
        "--temperature": args.temperature is not None,
        "--top-p": args.top_p is not None,
    }
    here = {"--grid": args.grid != "processor", "--revision": args.revision is not None, **draws}
    there = {"--url": args.url is not None, "--api-key-env": args.api_key_env is not None}
    idle, engine = there, "--engine transformers, the default"
    if args.kind == "released":
        idle, engine = {**here, **there}, "--kind released"
    elif args.engine == "server":
        idle, engine = here, "--engine server"
    if names := [name for name, given in idle.items() if given]:
        raise UserError(f"{', '.join(names)}: of no effect with {engine}; leave it out")
    if args.sample_seed is None and any(draws.values()):
        raise UserError("--temperature and --top-p need --sample-seed, the seed of the draws")


def _loaded(args: argparse.Namespace) -> Captioner:
    from discovla.captioning.llava import LlavaNextCaptioner, Sampling

    sampling = None
    if args.sample_seed is not None:
        given = {"temperature": args.temperature, "top_p": args.top_p}
        known = {name: value for name, value in given.items() if value is not None}
        sampling = Sampling(args.sample_seed, **known)
    return LlavaNextCaptioner(
        args.model,
        revision=args.revision,
        dtype=args.dtype,
        device=args.device,
        max_new_tokens=args.max_new_tokens,
        batch_size=args.batch_size,
        grid=args.grid,
        sampling=sampling,
    )


def _served(args: argparse.Namespace) -> Captioner:
    from discovla.captioning.server import ServerCaptioner

    return ServerCaptioner(
        args.url,
        model=args.model,
        concurrency=args.concurrency,
        max_new_tokens=args.max_new_tokens,
        api_key_env=args.api_key_env,
    )


def run_merge(args: argparse.Namespace) -> int:
    """Merge shards; the counts go to the log."""
    from discovla.captioning import table

    if bool(args.files) == (args.shards is not None):
        raise UserError("give the shards either one by one or as --shards DIR")
    shards = args.files or table.shards_in(args.shards)
    metadata = table.merge(shards, args.annotations, args.captions_id, args.output)
    log.info("%s: %s", args.output, metadata["counts"])
    return 0
