"""All of a step's products are counted."""

from __future__ import annotations

import pytest
import torch

from benchmarks.flops import flops_of
from discovla.methods.lora import LowRank
from discovla.models import kernels


def test_products_of_every_kernel_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "prefers_onednn", lambda: True)
    x, weight = torch.randn(64, 256), torch.randn(768, 256, requires_grad=True)
    product = 2 * 64 * 256 * 768
    assert x.numel() * len(weight) >= kernels._MIN_FLOPS
    assert flops_of(lambda: kernels.linear(x, weight)) == product
    assert flops_of(lambda: kernels.linear(x, weight).sum().backward()) == 2 * product

    lora = LowRank(256, 8)
    with torch.no_grad():
        found = flops_of(lambda: lora(torch.zeros(64, 768), x))
    assert found == 2 * 64 * 8 * (256 + 768)
