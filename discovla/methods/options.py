"""What single methods let a user set beyond `RunSettings`, and what fits which CLIP.

Checked while the workflow plans, before any job: no torch here. Values that the methods' authors
chose stand in config/methods.yaml. A method without settings of its own needs nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from discovla.errors import UserError
from discovla.models.dims import Dims
from discovla.settings import Options, RunSettings, setting


@dataclass(frozen=True, kw_only=True)
class DiscoVLAOptions(Options):
    """Nothing of its own: H_V and H_L are the paper's constants."""

    def check(self, settings: RunSettings, dims: Dims) -> None:
        """H_V and H_L against the depth of the towers."""
        super().check(settings, dims)
        for tower, top in (("vision", settings.vision_layers), ("text", settings.text_layers)):
            depth = dims.tower(tower).layers
            if top > depth:
                raise UserError(
                    f"setting {tower}_layers is {top}; the {tower} tower of {settings.backbone} "
                    f"has {depth} blocks: give 0 to {depth}"
                )


@dataclass(frozen=True, kw_only=True)
class PromptOptions(Options):
    """Prompts in every block of both towers."""

    prompts: int = setting("vectors per block in each tower", minimum=1)

    def check(self, settings: RunSettings, dims: Dims) -> None:
        """Words and the prompts before them need rows of the positional table."""
        super().check(settings, dims)
        _check_room(self.prompts, settings, dims)


@dataclass(frozen=True, kw_only=True)
class AdapterOptions(Options):
    """Bottlenecks behind the MLPs."""

    bottleneck: int = setting("width of the bottleneck", minimum=1)


@dataclass(frozen=True, kw_only=True)
class RAPOptions(Options):
    """Our reconstruction of RAP."""

    modulation_rank: int = setting("rank over frames of scale and shift", minimum=1)
    displaced: float = setting("share of a frame's patches that are displaced", minimum=0)

    def check(self, settings: RunSettings, dims: Dims) -> None:
        """A share is at most 1."""
        super().check(settings, dims)
        if self.displaced > 1:
            raise UserError(f"setting displaced is {self.displaced:g}; allowed: 0 to 1")


@dataclass(frozen=True, kw_only=True)
class VoPOptions(Options):
    """Prompts of VoP; frames are apart in the lower blocks and joined in the upper ones."""

    prompts: int = setting("vectors per block in each tower", minimum=1)
    frame_prompts: int = setting("those of a frame's own among them (P, C)", default=0, minimum=0)
    frame_layers: int | None = setting(
        "lower vision blocks in which frames are apart; null = all of them",
        default=None,
        minimum=0,
    )

    def check(self, settings: RunSettings, dims: Dims) -> None:
        """Room for the prompts, and blocks that exist."""
        super().check(settings, dims)
        _check_room(self.prompts, settings, dims)
        depth, least = dims.vision.layers, int(settings.method != "vop")
        if self.frame_layers is not None and not least <= self.frame_layers <= depth:
            raise UserError(
                f"setting frame_layers is {self.frame_layers}; {settings.backbone} has {depth} "
                f"vision blocks: give {least} to {depth} with method {settings.method}"
            )
        if not least <= self.frame_prompts <= least * self.prompts:
            raise UserError(
                f"setting frame_prompts is {self.frame_prompts} with method {settings.method}; "
                f"vop has none: give 0; vop_fp and vop_fc: 1 to {self.prompts}, which count among "
                "the prompts"
            )


@dataclass(frozen=True, kw_only=True)
class DGLOptions(Options):
    """Global and local prompts."""

    prompts: int = setting("global, local, prefix and postfix vectors, each", minimum=1)
    generator: str = setting(
        "what makes prompts of the bank: two linear maps, or a transformer block",
        choices=("linear", "transformer"),
    )
    pool: str = setting(
        "the video's feature: the first global prompt, or plain means of projected tokens",
        default="global",
        choices=("global", "globals", "frames", "both"),
    )


@dataclass(frozen=True, kw_only=True)
class TempMeOptions(Options):
    """Schedule of merging tokens."""

    patch_merges: int = setting("tokens merged per block while clips are apart", minimum=0)
    merge_layers: tuple[int, ...] = setting("vision blocks (from 0) that join clips")
    merge_clips: tuple[int, ...] = setting("neighbouring clips joined at each of them")
    joined_percent: int = setting("of a joined clip's tokens merged across clips", minimum=0)
    inner_percent: int = setting("of a joined clip's tokens merged inside", minimum=0)

    def check(self, settings: RunSettings, dims: Dims) -> None:
        """The frames must divide by every factor in turn, and the blocks must exist."""
        super().check(settings, dims)
        depth = dims.vision.layers
        layers, clips = self.merge_layers, self.merge_clips
        if len(layers) != len(clips) or list(layers) != sorted(set(layers)):
            raise UserError(
                f"settings merge_layers {list(layers)} and merge_clips {list(clips)}: as many "
                "factors as blocks, blocks rising"
            )
        if layers and not 0 <= layers[0] <= layers[-1] < depth:
            raise UserError(
                f"setting merge_layers is {list(layers)}; {settings.backbone} has vision blocks "
                f"0 to {depth - 1}"
            )
        left = settings.frames
        for factor in clips:
            if factor < 1 or left % factor:
                raise UserError(
                    f"setting merge_clips is {list(clips)}: {settings.frames} frames cannot be "
                    f"joined so ({left} clips by {factor}); the factors must divide the frames "
                    "in turn, such as 2, 2, 3 for 12 frames or 4, 4, 2 for 32"
                )
            left //= factor
        for name in ("joined_percent", "inner_percent"):
            if (value := getattr(self, name)) > 100:
                raise UserError(f"setting {name} is {value}; allowed: 0 to 100")


@dataclass(frozen=True, kw_only=True)
class MVAdapterOptions(Options):
    """Temporal bottlenecks, tied between the towers."""

    bottleneck: int = setting("width of the bottleneck", minimum=1)
    adapter_heads: int = setting("heads of its small block", minimum=1)
    tie: str = setting(
        "side of the down-projection that tied layers scale", choices=("input", "output")
    )
    tied_layers: int = setting("upper blocks whose down-projections are tied", minimum=0)
    tie_width: int = setting("width of the vector that ties them", minimum=1)
    clip_bias_lr: float = setting(
        "learning rate of CLIP's biases over that of the adapters; 0 = they stay", minimum=0
    )
    calibration_width: int = setting("hidden width of the calibration", default=16, minimum=1)

    def check(self, settings: RunSettings, dims: Dims) -> None:
        """Heads divide the bottleneck; tied blocks exist in both towers."""
        super().check(settings, dims)
        if self.bottleneck % self.adapter_heads:
            raise UserError(
                f"setting adapter_heads is {self.adapter_heads}; it must divide bottleneck, "
                f"{self.bottleneck}"
            )
        depth = min(dims.vision.layers, dims.text.layers)
        if self.tied_layers > depth:
            raise UserError(
                f"setting tied_layers is {self.tied_layers}; the towers of {settings.backbone} "
                f"have {dims.vision.layers} and {dims.text.layers} blocks: give 0 to {depth}"
            )


def _check_room(prompts: int, settings: RunSettings, dims: Dims) -> None:
    room = dims.text.tokens - settings.words
    if prompts > room:
        raise UserError(
            f"setting prompts is {prompts}: with words {settings.words} the text is longer than "
            f"the {dims.text.tokens} positions of {settings.backbone}; give at most "
            f"{max(room, 0)} prompts, or fewer words"
        )


OPTIONS: dict[str, type[Options]] = {
    "discovla": DiscoVLAOptions,
    "prompt": PromptOptions,
    "adapter": AdapterOptions,
    "rap": RAPOptions,
    "vop": VoPOptions,
    "vop_fp": VoPOptions,
    "vop_fc": VoPOptions,
    "dgl": DGLOptions,
    "tempme": TempMeOptions,
    "mv_adapter": MVAdapterOptions,
}
"""Method → the class of its own settings; a method not listed has none."""


def read_settings(values: Mapping[str, Any], where: str) -> RunSettings:
    """All settings of a run, its method's own included, cast and checked.

    Args:
        values: settings by name; `method` decides which others there are.
        where: the file and row, for the error message.

    Raises:
        UserError: an unknown name, a missing constant, a wrong type or a value out of range.
    """
    return RunSettings.from_mapping(values, where, OPTIONS.get(str(values.get("method")), Options))
