from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovla.captioning.prompt import PROMPTS, guided_prompt, prompt_text, unguided_prompt
from discovla.errors import UserError


def test_guided_prompt_is_the_papers(shared) -> None:
    printed = shared("paper/discovla.txt").read_text(encoding="utf-8")
    assert guided_prompt("{*video caption*}") in printed


@given(st.text())
def test_caption_goes_in_as_it_stands(caption: str) -> None:
    head, tail = PROMPTS["guided"].split("{caption}")
    assert guided_prompt(caption) == prompt_text("guided", caption) == head + caption + tail
    assert prompt_text("unguided", caption) == unguided_prompt()


def test_unknown_kind() -> None:
    with pytest.raises(UserError, match="guided, unguided"):
        prompt_text("poem", "x")
