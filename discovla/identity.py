"""What decides frames and captions, and so their names on disk: 10 digits of a hash of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from discovla.captioning.fingerprint import folder_fingerprint
from discovla.captioning.length import WORDS, longest_answer
from discovla.captioning.prompt import PROMPTS
from discovla.errors import UserError
from discovla.settings import FRAME_STORAGE, RunSettings
from discovla.storage.files import content_hash

#: What else of a captioner decides its answers; hashed where it is not this.
CAPTIONER_DEFAULTS = {"engine": "transformers", "grid": "processor", "sampling": None}


def frames_identity(dataset: str, entry: Mapping[str, Any], settings: RunSettings) -> str:
    """`frames_id`: which frames of a dataset a run reads.

    Args:
        dataset: its name.
        entry: of config/datasets.
        settings: of the run.
    """
    hashed = settings.hashed()
    stored = {name: hashed[name] for name in FRAME_STORAGE if name in hashed}
    return content_hash(
        {
            **stored,
            "dataset": dataset,
            "reader": entry["reader"],
            "rules": entry["rules"],
            "frames": settings.frames,
            "sampling": settings.sampling,
            "sampling_fps": settings.sampling_fps,
        }
    )


def captions_identity(
    frames_id: str, settings: RunSettings, captioner: Mapping[str, Any] | None, where: str
) -> str:
    """`captions_id`: which pseudo captions of some frames a run reads.

    Args:
        frames_id: of the frames.
        settings: of the run.
        captioner: the entry of config/captioners.yaml that the run names; None if there is none.
        where: names the row in an error message.

    Raises:
        UserError: there is no such captioner.
    """
    if settings.captions == "released":
        return content_hash({"frames_id": frames_id, "released": True})
    if captioner is None:
        raise UserError(
            f"{where}: no captioner {settings.captioner!r}; config/captioners.yaml lists them"
        )
    deciding = {k: captioner[k] for k in ("model", "revision", "dtype")}
    deciding["max_new_tokens"] = longest_answer(captioner["max_new_tokens"], settings.words)
    if settings.words != WORDS:  # they decide which answers count as unfinished
        deciding["words"] = settings.words
    deciding |= {
        name: captioner[name]
        for name, default in CAPTIONER_DEFAULTS.items()
        if captioner.get(name, default) != default
    }
    # A model that is fetched by its id, or comes with this package, is known by its name.
    if captioner.get("engine") != "server" and Path(captioner["model"]).is_dir():
        deciding["weights"] = folder_fingerprint(captioner["model"])
    return content_hash({"frames_id": frames_id, "prompt": PROMPTS[settings.captions], **deciding})
