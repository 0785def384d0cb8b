"""What a saved state may be taken up by, and what is lost where it cannot be written."""

from __future__ import annotations

import json
import logging
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from discovla.errors import UserError
from discovla.storage.tensors import read_tensors, save_tensors
from discovla.training.checkpoint import read_adapter
from tests.training.fake import FakeBatches, trainer


def weights(folder: Path) -> dict[str, Tensor]:
    return read_adapter(folder / "adapter.safetensors")[0]


def interrupted(folder: Path, **options: Any) -> Path:
    """The state of a training that ended after 3 of 6 steps."""
    batches = FakeBatches(4)
    batches.interrupt_at = 3
    with pytest.raises(RuntimeError, match="plug"):
        trainer(folder, batches, save_every=1, **options).fit()
    return folder / "state" / "state.safetensors"


def rewritten(path: Path, tensors: Mapping[str, Tensor], **metadata: str) -> None:
    """A whole, sealed state with other content."""
    found, own = read_tensors(path, "")
    save_tensors(path, {**found, **tensors}, {**own, **metadata})


def test_another_micro_batch_goes_on(tmp_path: Path) -> None:
    """Nothing in a state is of the machine: a smaller GPU may take it up."""
    trainer(tmp_path / "whole").fit()
    interrupted(tmp_path / "parts")
    again = FakeBatches(4)
    run = trainer(tmp_path / "parts", again)
    run.micro_batch = 1
    run.fit()
    assert again.served == 3
    for name, tensor in weights(tmp_path / "whole").items():
        torch.testing.assert_close(weights(tmp_path / "parts")[name], tensor, atol=2e-5, rtol=1e-4)


def test_other_code_is_told_and_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = interrupted(tmp_path)
    with caplog.at_level(logging.WARNING):
        trainer(tmp_path / "same").fit()
        assert "begun with" not in caplog.text
        versions = json.loads(read_tensors(path, "")[1]["versions"])
        older = {**versions, "commit": "0123456789abcdef", "package_sha": "0" * 64}
        rewritten(path, {}, versions=json.dumps(older))
        trainer(tmp_path).fit()
    assert "begun with other code (0123456789ab" in caplog.text
    assert "remove the folder" in caplog.text
    assert (tmp_path / "adapter.safetensors").exists()


def test_a_tensor_of_another_shape_is_refused(tmp_path: Path) -> None:
    """Copied, a single row would silently fill all of them."""
    path = interrupted(tmp_path)
    name, tensor = next(
        (n, t)
        for n, t in read_tensors(path, "")[0].items()
        if n.startswith("model/") and len(t) > 1
    )
    rewritten(path, {name: tensor[:1].clone()})
    with pytest.raises(UserError, match="other code began this training") as caught:
        trainer(tmp_path).fit()
    assert repr(name.removeprefix("model/")) in str(caught.value)


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    trainer(tmp_path / "undisturbed").fit()

    class FullDisk(FakeBatches):
        def epoch(self, epoch: int, skip: int) -> Iterator[Mapping[str, Tensor]]:
            for batch in super().epoch(epoch, skip):
                if self.served == 3:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 13, before[1]))
                yield batch

    folder = tmp_path / "full"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(
            UserError, match=r"state\.safetensors: cannot be written: File too large"
        ):
            trainer(folder, FullDisk(4), save_every=1).fit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in (folder / "state").iterdir()] == ["state.safetensors"]
    again = FakeBatches(4)
    trainer(folder, again).fit()
    assert again.served == 4  # from the state after step 2
    found, wanted = weights(folder), weights(tmp_path / "undisturbed")
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
