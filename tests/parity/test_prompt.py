"""Independent prompts agree with the released code, and wrong ones are noticed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from discovla import parity
from discovla.errors import UserError
from discovla.methods.prompt import Prompt
from discovla.models.hooks import TEXT
from discovla.parity.case import Case
from tests.parity.wrong_prompts import WRONG

Shared = Callable[[str], Path]
CASE = "golden_methods/ivlp_public.json"


def test_outputs_both_heads_and_both_gradients_agree(shared: Shared) -> None:
    path = shared(CASE)
    errors = parity.compare(path)
    assert set(errors) == set(Case.read(path).wanted)
    assert {name.split("/")[0] for name in errors} == {"out", "grad", "grad_vjp"}
    assert parity.within_limits(errors), {n: e for n, e in errors.items() if e > parity.limit_of(n)}


@pytest.mark.parametrize(("wrong", "tower"), WRONG)
def test_wrong_prompts_are_noticed(shared: Shared, wrong: type[Prompt], tower: str) -> None:
    errors = parity.compare(shared(CASE), kind=wrong)
    feature = "out/text_feat" if tower == TEXT else "out/video_feat"
    assert errors[feature] > 100 * parity.limit_of(feature)
    assert max(e for n, e in errors.items() if n.startswith("grad/")) > 1e-2


def test_another_number_of_prompts_does_not_fit(shared: Shared) -> None:
    with pytest.raises(UserError, match=r"prompts is 6: .* at most 5"):
        parity.compare(shared(CASE), prompts=6)
