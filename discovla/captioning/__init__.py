"""Pseudo image captions (paper §3.4): prompts, the LLaVA-NeXT captioner, the caption table."""
