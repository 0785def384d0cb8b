"""LLaVA-NeXT (§3.4) through transformers' own classes, one pass over each frame for all prompts."""

from discovla.captioning.llava.captioner import DTYPES, LlavaNextCaptioner
from discovla.captioning.llava.decoding import Sampling

__all__ = ["DTYPES", "LlavaNextCaptioner", "Sampling"]
