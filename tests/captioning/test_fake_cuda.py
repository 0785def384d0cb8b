"""The captioner's passes on a made-up GPU: devices, types, shapes, and what is waited for."""

from __future__ import annotations

from unittest import mock

import pytest
import torch

from benchmarks.caption_case import case_of
from discovla.captioning.llava import attention as module
from discovla.captioning.llava import generation
from discovla.captioning.llava.attention import attention
from tests import fake_cuda as fake


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_images_prefixes_tails_and_answers(dtype: torch.dtype) -> None:
    """Everything up to the answers' own numbers; the tiles of an image come in one copy a part."""
    plain = mock.Mock(wraps=module.plain_attention)
    with fake.fake_cuda() as waits:
        case = case_of("test", "cuda", dtype, frames=2, captions=3, answer=2)
        case.generator.ends = [7, 8]
        waits.found.clear()
        with (
            # Each step reads one number, which decides whether it goes on: here no row has ended.
            mock.patch.object(generation, "int", return_value=0, create=True),
            mock.patch.object(module, "plain_attention", plain),
        ):
            # What is read at last are the answers: `said.tolist()`.
            assert fake.raises_for(case.shared)
    own = {place for place in waits.found if not place.startswith("transformers")}
    assert len(own) == 1
    assert next(iter(own)).startswith("discovla/captioning/llava/images.py")
    # In half precision only the rows' own tokens, whose padding is masked, go without the kernel.
    layers = case.model.config.text_config.num_hidden_layers
    masked = [call for call in plain.call_args_list if call.kwargs["bias"] is not None]
    assert len(masked) == layers
    assert (plain.call_count == layers) == (dtype == torch.bfloat16)


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (9, 0)])
def test_the_fused_kernel_is_for_cards_that_have_it(
    capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = mock.Mock(wraps=module.plain_attention)
    with fake.fake_cuda():
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(module, "plain_attention", plain)
        query = torch.empty(2, 4, 5, 16, dtype=torch.bfloat16, device="cuda")
        key = torch.empty(2, 2, 5, 16, dtype=torch.bfloat16, device="cuda")
        out, total = attention(query, key, key, 0.25, causal=True)
    assert (out.shape, out.dtype) == (query.shape, torch.bfloat16)
    assert (total.shape, total.dtype) == (query.shape[:3], torch.float32)
    assert plain.called == (capability < (8, 0))
