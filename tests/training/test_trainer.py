"""The training loop: what it writes, how it ends, and that an interrupted one changes nothing."""

from __future__ import annotations

import csv
import logging
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from discovla.errors import UserError
from discovla.interruption import terminable
from discovla.training import trainer as trainers
from discovla.training.checkpoint import read_adapter
from discovla.training.device import to_device
from discovla.training.optim import Schedule
from discovla.training.state import Identity, remove_state
from discovla.training.trainer import Plan
from tests.models import tiny
from tests.training.fake import IDENTITY, SAMPLES, FakeBatches, trainer


def curve(folder: Path) -> list[dict[str, float]]:
    with (folder / "curve.csv").open() as handle:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(handle)]


def weights(folder: Path) -> dict[str, Tensor]:
    return read_adapter(folder / "adapter.safetensors")[0]


def same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    torch.set_num_threads(1)
    trainer(folder).fit()
    return folder


def test_plan_drops_what_does_not_fill_a_batch() -> None:
    assert Plan.of(11, tiny.settings(epochs=3)) == Plan(2, 6)
    assert Plan.of(180_000, tiny.settings(epochs=5, batch_size=128)) == Plan(1406, 7030)
    assert Plan.of(11, tiny.settings(epochs=3, max_steps=5)) == Plan(2, 5)
    assert Plan.of(11, tiny.settings(epochs=3, max_steps=50)) == Plan(2, 6)
    with pytest.raises(UserError, match="3 training samples"):
        Plan.of(3, tiny.settings())


def test_it_does_what_a_plain_loop_does(undisturbed: Path) -> None:
    """Forward, backward, clip, AdamW, written down once more without the machinery."""
    settings = tiny.settings(epochs=3, lr=1e-2)
    model = tiny.model(shaken=False, epochs=3, lr=1e-2)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        trained, eps=settings.adam_eps, weight_decay=settings.weight_decay
    )
    schedule = Schedule(6, 0.6)
    losses = []
    batches = FakeBatches(settings.batch_size)
    for step in range(6):
        if step % 2 == 0:
            epoch = batches.epoch(step // 2, 0)
        optimiser.param_groups[0]["lr"] = settings.lr * schedule.factor(step)
        loss = model.loss(next(epoch))["loss"]  # no cut of the captions here
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, settings.clip_norm)
        optimiser.step()
        losses.append(loss.item())
    rows = curve(undisturbed)
    assert [row["loss"] for row in rows] == pytest.approx(losses, rel=1e-5)
    found = weights(undisturbed)
    for name, tensor in model.trainable_state().items():
        torch.testing.assert_close(found[name], tensor, atol=2e-5, rtol=1e-4)


def test_files_and_metadata(undisturbed: Path) -> None:
    found = sorted(str(p.relative_to(undisturbed)) for p in undisturbed.rglob("*") if p.is_file())
    assert found == [
        "adapter.safetensors",
        *(f"checkpoints/epoch{k}.safetensors" for k in (1, 2, 3)),
        "cost.json",
        "curve.csv",
    ]
    state, metadata = read_adapter(undisturbed / "adapter.safetensors")
    assert {metadata[k] for k in ("run_id", "seed", "data_id")} == {
        IDENTITY.run_id,
        str(IDENTITY.seed),
        IDENTITY.data_id,
    }
    assert metadata["step"] == "6"
    assert metadata["method"] == "discovla"
    last, last_metadata = read_adapter(undisturbed / "checkpoints" / "epoch3.safetensors")
    assert same(state, last)
    assert last_metadata["step"] == "6"
    first, _ = read_adapter(undisturbed / "checkpoints" / "epoch1.safetensors")
    assert not same(state, first)


def test_curve_has_every_step(undisturbed: Path) -> None:
    rows = curve(undisturbed)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert list(rows[0]) == [
        *("step", "lr", "loss", "loss_vid", "loss_img", "loss_kl"),
        *("grad_norm", "samples_per_second"),
    ]
    assert rows[0]["lr"] == 0
    for row in rows:
        total = row["loss_vid"] + 0.3 * row["loss_img"] + 1.0 * row["loss_kl"]
        assert row["loss"] == pytest.approx(total, rel=1e-5)
        assert row["samples_per_second"] > 0


@pytest.mark.parametrize("dies_at", [0, 1, 3, 5])
@pytest.mark.parametrize("save_every", [1, 2, 100])
def test_killed_anywhere_it_ends_bit_identical(
    undisturbed: Path, tmp_path: Path, dies_at: int, save_every: int
) -> None:
    batches = FakeBatches(4)
    batches.interrupt_at = dies_at
    with pytest.raises(RuntimeError, match="plug"):
        trainer(tmp_path, batches, save_every=save_every).fit()
    assert not (tmp_path / "adapter.safetensors").exists()
    again = FakeBatches(4)
    trainer(tmp_path, again, save_every=save_every).fit()
    assert again.served == 6 - (dies_at if save_every == 1 else dies_at - dies_at % 2)
    assert same(weights(tmp_path), weights(undisturbed))
    timeless = [[{**r, "samples_per_second": 0} for r in curve(f)] for f in (tmp_path, undisturbed)]
    assert timeless[0] == timeless[1]
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_finished_step(
    undisturbed: Path, tmp_path: Path, number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    class Disturbed(FakeBatches):
        def epoch(self, epoch: int, skip: int) -> Iterator[Mapping[str, Tensor]]:
            for batch in super().epoch(epoch, skip):
                if self.served == 4:
                    os.kill(os.getpid(), number)
                yield batch

    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, Disturbed(4)).fit()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert not (tmp_path / "adapter.safetensors").exists()
    again = FakeBatches(4)
    with caplog.at_level(logging.INFO):
        trainer(tmp_path, again).fit()
    assert "going on after step 4 of 6" in caplog.text
    assert again.served == 2
    assert same(weights(tmp_path), weights(undisturbed))


def test_a_signal_after_the_last_step_comes_too_late(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state is gone by then: to end with an error would cost the whole training."""

    def removed(folder: Path) -> None:
        remove_state(folder)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(trainers, "remove_state", removed)
    with terminable():
        trainer(tmp_path, FakeBatches(4)).fit()
    assert same(weights(tmp_path), weights(undisturbed))


@pytest.mark.parametrize(
    "other",
    [
        Identity("lora-tiny-9999999999", 1, "abcdefabcd"),
        Identity("lora-tiny-0123456789", 2, "abcdefabcd"),
        Identity("lora-tiny-0123456789", 1, "0000000000"),
    ],
)
def test_state_of_another_training_is_refused(tmp_path: Path, other: Identity) -> None:
    batches = FakeBatches(4)
    batches.interrupt_at = 3
    with pytest.raises(RuntimeError):
        trainer(tmp_path, batches).fit()
    with pytest.raises(UserError, match="interrupted training of") as caught:
        trainer(tmp_path, identity=other).fit()
    assert "state" in str(caught.value)
    assert not (tmp_path / "adapter.safetensors").exists()


def test_damaged_state_is_refused(tmp_path: Path) -> None:
    batches = FakeBatches(4)
    batches.interrupt_at = 3
    with pytest.raises(RuntimeError):
        trainer(tmp_path, batches).fit()
    path = tmp_path / "state" / "state.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="damaged"):
        trainer(tmp_path).fit()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_not_finite_numbers_end_the_run(tmp_path: Path, bad: float) -> None:
    batches = FakeBatches(4)
    poisoned = 5
    batches.all["video"][poisoned] = bad
    order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(0)).tolist()
    step = order.index(poisoned) // 4 + 1
    if step > 2:
        pytest.fail("the poisoned clip is not in the first epoch; choose another")
    with pytest.raises(UserError) as caught:
        trainer(tmp_path, batches).fit()
    message = str(caught.value)
    for part in (IDENTITY.run_id, f"step {step} of 6", "'clip-5'", "loss_vid nan", "smaller lr"):
        assert part in message
    assert not (tmp_path / "adapter.safetensors").exists()
    assert not (tmp_path / "state" / "state.safetensors").exists()


def test_memorisable_pairs_are_learnt(tmp_path: Path) -> None:
    batches = FakeBatches(4, samples=4)
    run = trainer(tmp_path, batches, epochs=40, lr=3e-2, batch_size=4)
    run.plan = Plan(1, 40)
    run.schedule = Schedule(40, 4)
    run.fit()
    losses = [row["loss_vid"] for row in curve(tmp_path)]
    assert losses[-1] < 0.25 * losses[0]


def test_bf16_keeps_trained_tensors_and_losses_in_float32(tmp_path: Path) -> None:
    trainer(tmp_path, epochs=1, dtype="bf16").fit()
    assert all(t.dtype == torch.float32 for t in weights(tmp_path).values())
    exact, rounded = tmp_path / "exact", tmp_path
    trainer(exact, epochs=1).fit()
    first, second = curve(exact)[0]["loss"], curve(rounded)[0]["loss"]
    assert first != second
    assert second == pytest.approx(first, rel=0.2)


def test_captions_are_cut_to_the_longest() -> None:
    batch = tiny.batch()
    for name in ("text", "frame_text"):
        batch[f"{name}_mask"][..., 6:] = False
    moved = to_device(batch, torch.device("cpu"))
    longest = {n: int(batch[f"{n}_mask"].sum(-1).max()) for n in ("text", "frame_text")}
    for name, length in longest.items():
        for part in ("ids", "mask"):
            key = f"{name}_{part}"
            assert torch.equal(moved[key], batch[key][..., :length])
    assert torch.equal(moved["video"], batch["video"])
