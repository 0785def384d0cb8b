"""Encoding on a GPU that is made up, as evaluation, pictures and search do it."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

from discovla.data.augment import OPERATIONS, Step
from discovla.data.augment_device import encode_steps, to_pictures
from discovla.deploy import inference
from discovla.models.retriever import Retriever
from discovla.report.similarity import frame_caption_similarity
from discovla.retrieval import features
from discovla.search import model as search
from tests import fake_cuda as fake
from tests.methods import every
from tests.models import tiny

FRAMES = every.FRAMES


def run_of(model: Retriever) -> Any:
    def tokenize(texts: list[str], words: int) -> tuple[Tensor, Tensor]:
        return torch.ones(len(texts), words, dtype=torch.int64), torch.ones(len(texts), words) > 0

    backbone = SimpleNamespace(image_size=tiny.SIDE, words_limit=tiny.CONTEXT, tokenize=tokenize)
    return SimpleNamespace(retriever=model, backbone=backbone, settings=model.method.settings)


def numbers(tensor: Tensor) -> Any:
    """What `.numpy()` gives of a tensor without numbers."""
    assert tensor.device.type == "cpu"
    assert tensor.dtype == torch.float32
    return np.zeros(tuple(tensor.shape), np.float32)


@pytest.mark.parametrize("name", ["discovla", "tempme", "dgl"])
def test_features_of_a_split_come_from_the_device_once(name: str) -> None:
    model, loaded = every.model(name, shaken=False), tiny.batch(frames=FRAMES)
    with fake.fake_cuda() as waits, torch.inference_mode():
        fake.placed(model, fake.CUDA)
        batches = [fake.like(loaded, torch.device("cpu"))] * 2
        with mock.patch.object(features, "to_device", fake.untrimmed):
            videos = features._encode(
                batches,
                lambda batch: model.encode_video(batch["video"], batch["video_mask"]).pooled,
                *(run_of(model), "videos", 2),
            )
            texts = features._encode(
                batches,
                lambda batch: model.encode_text(batch["text_ids"], batch["text_mask"]),
                *(run_of(model), "captions", 2),
            )
    for found in (videos, texts):
        assert (found.device.type, found.dtype, len(found)) == ("cpu", torch.float32, 8)
    assert len(waits.found) == 2
    assert all("a copy from the device" in wait for wait in waits.found)


def test_the_picture_of_similarities() -> None:
    model = every.model("discovla", shaken=False, alpha=0.3, beta=1.0)
    frames = np.zeros((FRAMES, 20, 24, 3), np.uint8)
    with fake.fake_cuda(), mock.patch.object(Tensor, "numpy", numbers):
        fake.placed(model, fake.CUDA)
        found = frame_caption_similarity(run_of(model), frames, ["a", "b"])
    assert found.shape == (FRAMES, 2)


def test_the_encoder_of_search() -> None:
    model = every.model("discovla", shaken=False)
    encoder = search.Encoder.__new__(search.Encoder)
    encoder._model = inference.Model(run_of(model), {})
    encoder._batch, encoder._lock = 2, threading.Lock()
    width = model.clip.text_projection.shape[1]
    clips = [np.zeros((FRAMES, 20, 24, 3), np.uint8)] * 3
    with (
        fake.fake_cuda(),
        mock.patch.object(Tensor, "numpy", numbers),
        # The longest query, from a mask on the CPU.
        mock.patch.object(inference, "int", return_value=5, create=True),
    ):
        fake.placed(model, fake.CUDA)
        assert encoder.videos(clips).shape == (3, width)
        assert encoder.texts(["a query"]).shape == (1, width)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_augmentation_waits_for_nothing_but_a_histogram(operation: str) -> None:
    """What is drawn is read on the CPU, where it is, and only numbers of a clip travel."""
    sizes = [(2, 24, 40), (2, 40, 24), (2, 24, 40)]
    steps = encode_steps([Step(operation, 0.3 if "translate" in operation else 2.0)] * 2)
    batch = {
        "pixels": torch.zeros(sum(3 * f * h * w for f, h, w in sizes), dtype=torch.uint8),
        "pixel_sizes": Known(sizes),
        "augment": Known([steps.numpy()] * len(sizes)),
    }
    with fake.fake_cuda() as waits:

        def made() -> Tensor:
            return to_pictures(batch, 16, fake.CUDA)["video"]  # type: ignore[arg-type]

        if operation == "equalize":
            # torch's bincount reads the largest value, also where the number of bins is given.
            assert fake.raises_for(made)
            return
        video = made()
    assert (video.shape, video.dtype, video.device) == ((3, 2, 3, 16, 16), torch.uint8, fake.CUDA)
    assert waits.found == []


class Known:
    """Numbers on the CPU, which tensors do not have on a made-up machine."""

    def __init__(self, numbers: Any) -> None:
        self.numbers = np.asarray(numbers)

    def __getitem__(self, place: Any) -> Known:
        return Known(self.numbers[place])

    def unbind(self, dim: int) -> list[Known]:
        return [Known(part) for part in np.moveaxis(self.numbers, dim, 0)]

    def tolist(self) -> Any:
        return self.numbers.tolist()

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.numbers)).to(*args, **kwargs)
