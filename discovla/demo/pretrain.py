"""Everything behind `discovla demo-pretrain`: both tiny models, measured and documented."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from discovla.demo.clip_model import load_clip
from discovla.demo.llava_model import load_llava
from discovla.demo.pretrain_clip import pretrain_clip
from discovla.demo.pretrain_llava import measure_captions, pretrain_llava
from discovla.demo.quality import retrieval_recall, zero_shot_accuracy
from discovla.demo.weights import CONTENTS, LOG, versions, write_readme
from discovla.demo.world import SPLITS, decode_video, middle_frames, write_world
from discovla.storage.files import write_json
from discovla.storage.folders import replaced_folder

FRAMES_PER_VIDEO = 8


def pretrain(output: str | Path, *, seed: int = 0, scale: float = 1.0) -> dict[str, Any]:
    """Pretrain CLIP, then LLaVA-NeXT from its visual tower, and write the folder of weights.

    Args:
        output: folder to make, with `clip/`, `llava/`, `README.md` and `training_log.json`.
        seed: of initial weights and data; the shipped weights have seed 0.
        scale: factor on steps and data; below 1 only for tests of the code path.

    Returns:
        The content of `training_log.json`.

    Raises:
        UserError: `output` holds files that are not from an earlier run.
    """
    with replaced_folder(output, CONTENTS) as folder:
        clip_log = pretrain_clip(folder / "clip", seed=seed, scale=scale)
        llava_log = pretrain_llava(folder / "llava", folder / "clip", seed=seed, scale=scale)
        n_videos = max(1, round(SPLITS["train"] * scale))
        return document(folder, clip_log, llava_log, n_videos=n_videos)


def document(
    folder: Path, clip_log: dict[str, Any], llava_log: dict[str, Any], *, n_videos: int
) -> dict[str, Any]:
    """Measure the saved float16 weights in `folder`, write its log and its README.

    The captioner is measured on eight frames of each of the first `n_videos` training videos,
    decoded from files, the first caption of each being the guidance.
    """
    model, tokenizer = load_clip(folder / "clip")
    log = {
        "versions": versions(),
        "clip": {
            "zero_shot": zero_shot_accuracy(model, tokenizer),
            "image_to_text": retrieval_recall(model, tokenizer),
            **clip_log,
        },
        "llava": {"decoded_frames": _measure_decoded(folder / "llava", n_videos), **llava_log},
    }
    write_json(folder / LOG, log)
    write_readme(
        folder,
        clip_parameters=clip_log["parameters"],
        llava_parameters=llava_log["parameters"],
        cpu_seconds=clip_log["cpu_seconds"] + llava_log["cpu_seconds"],
    )
    return log


def _measure_decoded(llava_folder: Path, n_videos: int) -> dict[str, dict[str, float]]:
    images, captions, truth = [], [], []
    with tempfile.TemporaryDirectory() as temporary:
        world = Path(temporary) / "world"
        for clip in write_world(world, {"train": n_videos}):
            frames, descriptions = decode_video(world / clip.file), clip.descriptions()
            for frame in middle_frames(FRAMES_PER_VIDEO):
                images.append(frames[frame])
                captions.append(clip.captions[0])
                truth.append(descriptions[frame])
    return measure_captions(*load_llava(llava_folder), np.stack(images), captions, truth)
