"""Names of devices, on a machine with cards that are made up."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from discovla import cards
from discovla.devices import full_float32, resolve_device
from discovla.errors import UserError
from discovla.training.device import reproducible


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, int]:
    """Cards by name and their free bytes, as torch would show them."""
    free = {"GPU-a": 10, "GPU-b": 30, "GPU-c": 20}
    names = list(free)
    monkeypatch.setattr(cards, "_held", {})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(names))
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda n: SimpleNamespace(uuid=names[n])
    )
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda n: (free[names[n]], 40))
    monkeypatch.setattr(cards.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: current.append(device))
    return free


current: list[torch.device] = []
"""What was made the current device, in order."""


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_each_process_takes_a_free_card(
    machine: dict[str, int],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    taken = []
    for _ in range(3):
        taken.append(resolve_device(name))
        assert resolve_device(name) == taken[-1] == current[-1]
        another_process(monkeypatch)
    assert taken == [torch.device("cuda", n) for n in range(3)]
    assert caplog.text == ""
    # More processes than cards: the one with the most free memory, and it is said.
    assert resolve_device(name) == torch.device("cuda", 1)
    assert "all 3 GPUs" in caplog.text


def another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on: it holds nothing itself, but the locks of the others are there."""
    others = cards._held
    monkeypatch.setattr(cards, "_held", {})
    cards._held.update({f"held by another: {card}": lock for card, lock in others.items()})


def test_a_named_card_is_taken_as_named(
    machine: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resolve_device("cuda:2") == torch.device("cuda:2") == current[-1]
    assert resolve_device("cpu") == torch.device("cpu")
    another_process(monkeypatch)
    # Asked for by name it is shared; who looks for a free one gets another.
    assert resolve_device("cuda:2") == torch.device("cuda:2")
    assert [resolve_device("auto").index] == [0]
    another_process(monkeypatch)
    assert resolve_device("auto").index == 1
    another_process(monkeypatch)
    assert resolve_device("auto") == torch.device("cuda:1")  # all taken: most free memory
    with pytest.raises(UserError, match=r"cuda:3.*torch sees 3"):
        resolve_device("cuda:3")


def test_float32_is_float32_whatever_was_set_before() -> None:
    def shown() -> tuple[bool, bool]:
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    before = shown()
    try:
        # What NVIDIA's containers do by their environment, and torch's own default.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        with suppress(RuntimeError), full_float32():
            assert shown() == (False, False)
            raise RuntimeError
        assert shown() == (True, True)
        with reproducible(torch.device("cpu")):
            assert shown() == (False, False)
        assert shown() == (True, True)
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("name", ["mps", "gpu", "cuda:x", ""])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="allowed: auto, cpu, cuda, cuda:N"):
        resolve_device(name)
