"""README.md of an exported run: what it is, how to load it, its numbers and where they are from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from discovla.storage.files import read_record

METRICS = ("R@1", "R@5", "R@10", "R@sum", "MdR", "MnR")
_SHOWN = (
    *("method", "backbone", "frames", "words", "sampling", "lora_rank", "alpha", "beta"),
    *("epochs", "batch_size", "lr", "dtype"),
)

LOADING = {
    "discovla": """\
```python
import discovla

model = discovla.load("PATH/TO/THIS/FOLDER")
scores = model.similarity(["a man is cooking"], ["one.mp4", "two.mp4"])  # cosines (1, 2)
```""",
    "open_clip": """\
```python
import open_clip

model, _, preprocess = open_clip.create_model_and_transforms("local-dir:PATH/TO/THIS/FOLDER")
```

A video's feature is the mean of the normalised features of its frames, normalised again. The
tokenizer is CLIP's own, or the file `bpe.txt.gz` of this folder where there is one
(`open_clip.SimpleTokenizer("bpe.txt.gz")`).""",
}


def model_card(
    config: Mapping[str, Any], adapter: Mapping[str, str], folder: Path, form: str
) -> str:
    """The card as Markdown.

    Args:
        config: the run's config.json.
        adapter: metadata of its adapter; empty for a run that trains nothing.
        folder: of the seed, where the metrics lie.
        form: what is exported, a key of `LOADING`.
    """
    settings, backbone = config["settings"], config["backbone"]
    lines = [
        "---",
        f"library_name: {form}",
        "license: other",
        "tags: [text-video-retrieval, clip]",
        "---",
        "",
        f"# {config['run_id']}",
        "",
        f"Text-video retrieval: CLIP ({backbone['name']}) adapted by the method "
        f"`{settings['method']}` to the dataset `{config['dataset']}`, made with the DiscoVLA "
        "reproduction.",
        "",
        "## Load it",
        "",
        LOADING[form],
        "",
        "## Numbers",
        "",
        *_numbers(folder),
        "",
        "## How it was made",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {settings[name]} |" for name in _SHOWN if name in settings),
        f"| CLIP's weights, sha256 | {backbone.get('sha256')} |",
        *(f"| {name} | {value} |" for name, value in _origin(config, adapter).items()),
        "",
        "## Terms of use",
        "",
        "- The code is under the MIT licence.",
        "- The weights build on CLIP's, whose licence and model card apply (OpenAI's: MIT, "
        "meant for research).",
        "- They were trained on the videos and captions of the dataset; look up its terms before "
        "you pass them on. MSRVTT, LSMDC, ActivityNet and DiDeMo are for research; LSMDC needs a "
        "signed agreement.",
        "",
    ]
    return "\n".join(lines)


def _origin(config: Mapping[str, Any], adapter: Mapping[str, str]) -> dict[str, Any]:
    """Seed, step, data and code, as the adapter says."""
    ids = {name: config[name] for name in ("frames_id", "captions_id")}
    if not adapter:
        return ids
    code = json.loads(adapter["versions"])
    excluded = json.loads(adapter.get("excluded", "[]"))
    return {
        **{name: adapter[name] for name in ("seed", "step", "selection", "data_id")},
        **ids,
        "training clips left out": len(excluded),
        "code": f"{code['commit'] or code['package_sha'][:12]}{' +' if code['dirty'] else ''}",
        "torch": code["versions"].get("torch"),
    }


def _numbers(folder: Path) -> list[str]:
    """A line per direction of each metrics file of the seed that is of the adapter's own step."""
    files = [read_record(path) for path in sorted(folder.glob("metrics.*.json"))]
    # Numbers of a checkpoint chosen after the training are not those of what is exported.
    found = [metrics for metrics in files if metrics["selection"]["rule"] in ("last", None)]
    if not found:
        return ["None were measured where this was exported."]
    lines = [
        f"| split | post | checkpoint | direction | {' | '.join(METRICS)} |",
        "|" + "---|" * (4 + len(METRICS)),
    ]
    notes = []
    for metrics in found:
        post, rule = metrics["post"]["name"], metrics["selection"]["rule"] or "-"
        for direction in ("t2v", "v2t"):
            if metrics[direction] is not None:
                values = " | ".join(f"{metrics[direction][name]:.1f}" for name in METRICS)
                lines.append(f"| {metrics['split']} | {post} | {rule} | {direction} | {values} |")
        commit = metrics["code"]["commit"] or metrics["code"]["package_sha"]
        notes.append(
            f"- {post}, {rule}: {metrics['n_queries_t2v']} queries, data_id {metrics['data_id']}, "
            f"{len(metrics['excluded'])} clips left out, code {commit[:12]}, "
            f"{metrics['started']}"
        )
        if metrics["post"]["transductive"]:
            notes.append(f"- {post} uses all test queries together: not comparable with the others")
    return [*lines, "", *notes]
