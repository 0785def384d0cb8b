"""Full fine-tuning with mean-pooled frames (CLIP4Clip-meanP)."""

from __future__ import annotations

from torch import nn

from discovla.models.hooks import Method

_FROZEN = (
    "token_embedding.",
    "positional_embedding",
    "visual.positional_embedding",
    "visual.class_embedding",
    "visual.conv1.",
    "visual.ln_pre.",
)


class FullFineTuning(Method):
    """All blocks, final norms, projections and the temperature; the inputs' embeddings stay.

    CLIP4Clip's main_task_retrieval.py with freeze_layer_num 0: 123,540,993 values.
    """

    source = "Luo et al., 2022 (CLIP4Clip); ArrowLuo/CLIP4Clip, meanP, freeze_layer_num 0"

    def trainable(self, clip: nn.Module) -> dict[str, float]:
        """Everything except what turns pixels and ids into tokens."""
        return {n: 1.0 for n, _ in clip.named_parameters() if not n.startswith(_FROZEN)}
