"""What the captioner is asked (paper §3.4, Table 8): pure text, no model."""

from __future__ import annotations

from discovla.errors import UserError

#: kind of caption → the template of its prompt; `{caption}` is the caption of the video.
PROMPTS: dict[str, str] = {
    # §3.4, verbatim.
    "guided": (
        "The provided image is a frame sampled from the video, which describes {caption}. "
        "Based on the video's content, provide a caption for the provided image."
    ),
    # Ours: the paper compares with "w/o video caption" (Table 8) but does not print that prompt.
    "unguided": "Provide a caption for the provided image.",
}


def guided_prompt(caption: str) -> str:
    """The prompt that names the caption of the video (§3.4); `caption` goes in as it stands."""
    # Not str.format: a caption may hold braces.
    return PROMPTS["guided"].replace("{caption}", caption)


def unguided_prompt() -> str:
    """The prompt without the caption of the video (Table 8, first row; wording ours)."""
    return PROMPTS["unguided"]


def prompt_text(kind: str, caption: str) -> str:
    """The prompt of `kind` for one video caption.

    Raises:
        UserError: `kind` is not a key of `PROMPTS`.
    """
    if kind not in PROMPTS:
        raise UserError(f"no prompt of kind {kind!r}; allowed: {', '.join(PROMPTS)}")
    return PROMPTS[kind].replace("{caption}", caption)
