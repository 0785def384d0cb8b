"""The settings of one run: names, types, choices, meaning and identity.

The values live in `config/` (paper constants once, in `config/defaults.yaml`); this module says
what is allowed. A field without a default is a paper constant and must be given; a field with a
default is a choice of behaviour, and its default is left out of the hash, so that a field added
later, defaulting to the old behaviour, leaves every existing run id unchanged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any, get_type_hints

from discovla.errors import UserError

if TYPE_CHECKING:
    from discovla.models.dims import Dims


FRAME_STORAGE = ("frame_encoding", "frame_quality", "frame_short_side", "frame_limit_gb")
"""The settings of a run that say how its frames are kept on disk."""


def setting(
    doc: str,
    *,
    default: Any = MISSING,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    hashed: bool = True,
) -> Any:
    """A field of a settings class: its meaning, and what is allowed."""
    metadata = {"doc": doc, "choices": choices, "minimum": minimum, "hashed": hashed}
    if default is MISSING:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Settings of one method's own; the classes are in `methods/options.py`."""

    def check(self, settings: RunSettings, dims: Dims) -> None:
        """Refuse what does not fit the run or the sizes of its CLIP; raise `UserError`."""
        if settings.words > dims.text.tokens:
            raise UserError(
                f"setting words is {settings.words}; {settings.backbone} has {dims.text.tokens} "
                f"text positions: give 3 to {dims.text.tokens}"
            )


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Everything that decides the numbers of one training, seed excepted."""

    # Model
    method: str = setting("how CLIP is adapted; a name from `discovla methods`")
    backbone: str = setting("an entry of config/backbones.yaml")
    lora_rank: int = setting("r of LoRA in every attention (§4.1)", minimum=1)
    adapter_rank: int = setting("r of the fusion adapter (Eq. 7, §4.1)", minimum=1)
    vision_layers: int = setting("H_V: top vision blocks with IVFusion (§4.1)", minimum=0)
    text_layers: int = setting("H_L: top text blocks with IVFusion (§4.1)", minimum=0)
    attention: str = setting(
        "attention of the top blocks (Table 6)",
        default="ivfusion",
        choices=("ivfusion", "image", "video", "average"),
    )
    adapter_activation: str = setting(
        "σ of Eq. 7; the paper prints GELU, the released code uses QuickGELU",
        default="quick_gelu",
        choices=("quick_gelu", "gelu"),
    )
    adapter_bias: bool = setting("biases in Eq. 7; the paper prints none", default=True)

    # Losses
    alpha: float = setting("α: weight of the image-level alignment loss (Eq. 14)", minimum=0)
    beta: float = setting("β: weight of the distillation loss (Eq. 14)", minimum=0)
    image_similarity: str = setting(
        "similarity of frames and pseudo captions (Table 7)",
        default="fine",
        choices=("fine", "paired", "video"),
    )
    maxima_pooling: str = setting(
        "how the maxima of Eq. 8-9 are joined; the paper prints their mean",
        default="softmax",
        choices=("softmax", "mean"),
    )
    kl_reduction: str = setting(
        "Eq. 13 over the batch: `released` = 100/B² times the sum, `batch_mean` = mean over rows",
        default="released",
        choices=("released", "batch_mean"),
    )
    detach_teacher: bool = setting("no gradient into the image-level teacher", default=False)
    mask_same_video: bool = setting(
        "leave other captions of the same video out of the negatives", default=False
    )

    # Optimisation
    epochs: int = setting("passes over the training pairs (App. A)", minimum=1)
    batch_size: int = setting("B: global batch of the contrastive losses (App. A)", minimum=2)
    lr: float = setting("peak learning rate (App. A)", minimum=0)
    weight_decay: float = setting("decoupled decay of every trained tensor", minimum=0)
    beta1: float = setting("first AdamW coefficient", minimum=0)
    beta2: float = setting("second AdamW coefficient", minimum=0)
    adam_eps: float = setting("AdamW ε for exact gradients", minimum=0)
    warmup: float = setting("share of the steps with rising learning rate", minimum=0)
    clip_norm: float = setting("global gradient norm is clipped here", minimum=0)
    optimiser: str = setting(
        "AdamW, or BertAdam of CLIP4Clip and MV-Adapter: no bias correction, own clipping",
        default="adamw",
        choices=("adamw", "bertadam"),
    )
    decay: str = setting(
        "which trained tensors decay: all (released), or all but biases",
        default="all",
        choices=("all", "weights"),
    )
    cosine: str = setting(
        "where the cosine's phase starts: after the warm-up, or with the training (CLIP4Clip)",
        default="after_warmup",
        choices=("after_warmup", "from_start"),
    )
    storage: str = setting(
        "in which precision BertAdam keeps the trained matrices and their moments; `fp16` is "
        "what the published learning rates of CLIP4Clip and MV-Adapter belong to",
        default="fp32",
        choices=("fp32", "fp16"),
    )
    max_steps: int | None = setting("stop after this many steps", default=None, minimum=1)
    dtype: str = setting("arithmetic of training", default="fp32", choices=("fp32", "bf16"))

    # Data
    frames: int = setting("F: frames per clip (App. A)", minimum=1)
    words: int = setting("tokens per caption, both marks included (App. A)", minimum=3)
    sampling: str = setting(
        "which frames of a clip are taken", default="released", choices=("released", "uniform")
    )
    sampling_fps: float = setting("candidate frames per second (released sampling)", minimum=0.001)
    augment: str = setting(
        "augmentation of training frames",
        default="randaugment",
        choices=("randaugment", "none"),
    )
    augment_on: str = setting(
        "where training frames are augmented and resized; on the `device` it costs the CPU nothing "
        "and interpolation rounds otherwise",
        default="cpu",
        choices=("cpu", "device"),
    )
    frame_encoding: str = setting(
        "frames on disk: `raw` and `png` keep every bit; `auto` is raw where all frames of the "
        "dataset fit below frame_limit_gb, else JPEG with a short side of 256",
        default="auto",
        choices=("auto", "raw", "png", "jpeg"),
    )
    frame_quality: int = setting("of JPEG frames, up to 100", default=95, minimum=1)
    frame_short_side: int | None = setting(
        "larger frames are shrunk to this before they are stored; null = their own size",
        default=None,
        minimum=1,
    )
    frame_limit_gb: float = setting(
        "size of all raw frames, in 1e9 bytes, up to which `auto` takes them",
        default=64.0,
        minimum=0,
    )
    train_captions: str = setting(
        "training pairs of a video with several captions", default="all", choices=("all", "first")
    )
    captions: str = setting(
        "pseudo captions: with or without the video caption in the prompt (Table 8), or the "
        "authors' released file",
        default="guided",
        choices=("guided", "unguided", "released"),
        hashed=False,  # captions_id holds both, and only where captions are read
    )
    captioner: str = setting("an entry of config/captioners.yaml", hashed=False)

    options: Options = field(
        default_factory=Options, metadata={"doc": "settings of the method's own", "hashed": False}
    )

    @property
    def needs_captions(self) -> bool:
        """Whether training reads pseudo captions at all (Eq. 14: only if α or β > 0)."""
        return self.alpha > 0 or self.beta > 0

    @classmethod
    def from_mapping(
        cls, values: Mapping[str, Any], where: str, own: type[Options] = Options
    ) -> RunSettings:
        """Cast and check `values`; `methods.options.read_settings` also knows what `own` is.

        Args:
            values: settings by name.
            where: the file and row, for the error message.
            own: the class of the method's own settings.

        Raises:
            UserError: an unknown name, a missing constant, a wrong type or a value out of range.
        """
        common = {f.name: f for f in fields(cls) if f.name != "options"}
        special = {f.name: f for f in fields(own)}
        for name in values:
            if name not in common and name not in special:
                known = sorted([*common, *special])
                raise UserError(f"{where}: {name!r} is not a known setting; known: {known}")
        options = own(**_cast_all(values, own, special, where))
        return cls(**_cast_all(values, cls, common, where), options=options)

    def to_dict(self) -> dict[str, Any]:
        """All settings by name, in the order of this class, the method's own last."""
        values = dataclasses.asdict(self)
        options = values.pop("options")
        return {**values, **options}

    def hashed(self) -> dict[str, Any]:
        """The settings that make up the run id: constants, and choices that differ from default."""
        return {
            f.name: getattr(part, f.name)
            for part in (self, self.options)
            for f in fields(part)
            if f.metadata["hashed"] and (f.default is MISSING or getattr(part, f.name) != f.default)
        }


def _cast_all(
    values: Mapping[str, Any],
    kind: type[Any],
    known: Mapping[str, dataclasses.Field[Any]],
    where: str,
) -> dict[str, Any]:
    """The values of the fields `known` of a settings class, each cast to its type."""
    missing = [n for n, f in known.items() if f.default is MISSING and n not in values]
    if missing:
        raise UserError(
            f"{where}: no value for {missing}; config/defaults.yaml or config/methods.yaml should "
            "give it"
        )
    types = get_type_hints(kind)
    return {n: cast_setting(values[n], types[n], f, where) for n, f in known.items() if n in values}


def cast_setting(value: Any, kind: Any, spec: dataclasses.Field[Any], where: str) -> Any:
    """Cast one value to its declared type, so that 1 and 1.0 hash alike; raise `UserError`."""
    if kind == tuple[int, ...]:
        if not isinstance(value, list | tuple):
            raise UserError(f"{where}: {spec.name} must be a list of numbers, got {value!r}")
        return tuple(cast_setting(number, int, spec, where) for number in value)
    optional = kind == (int | None)
    if optional and value is None:
        return None
    target: type = int if optional else kind
    number = isinstance(value, int | float) and not isinstance(value, bool)
    fits = {
        bool: isinstance(value, bool),
        int: number and float(value).is_integer(),
        float: number,
        str: isinstance(value, str),
    }[target]
    if not fits:
        hint = " (YAML reads 6e-4 as text: write 6.0e-4)" if isinstance(value, str) else ""
        raise UserError(f"{where}: {spec.name} must be {target.__name__}, got {value!r}{hint}")
    value = target(value)
    choices, minimum = spec.metadata["choices"], spec.metadata["minimum"]
    if choices and value not in choices:
        raise UserError(f"{where}: {spec.name} is {value!r}; allowed: {', '.join(choices)}")
    if minimum is not None and not value >= minimum:
        raise UserError(f"{where}: {spec.name} is {value}; it must be at least {minimum}")
    return value
