"""Pretrained CLIP: nothing is trained, frame features are averaged."""

from discovla.models.hooks import Method


class ZeroShot(Method):
    """CLIP as it is (Table 5, first row)."""

    source = "Radford et al., 2021; mean pooling of frames"
