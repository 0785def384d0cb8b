"""FLOPs of what is run, all matrix products among them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import replaced
from discovla.models import kernels


def flops_of(step: Callable[[], Any]) -> int:
    """Of one call of `step`; oneDNN's products, which torch does not count, are made by torch."""
    products = {torch.ops.aten.addmm_: _product_in_place}
    with (
        replaced(kernels, "prefers_onednn", lambda: False),
        FlopCounterMode(display=False, custom_mapping=products) as counter,
    ):
        step()
    return counter.get_total_flops()


def _product_in_place(x: Any, a: Any, b: Any, *args: Any, **kwargs: Any) -> int:
    """Of x + a b, by shapes; torch counts it only where it makes a new tensor."""
    return int(2 * a[0] * a[1] * b[1])
