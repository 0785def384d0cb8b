"""Images on their way into the language model: prepared ahead in a thread, encoded many at once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.models.llava_next.modeling_llava_next import (
    get_anyres_image_grid_shape,
    unpad_image,
)

from discovla.errors import UserError

#: `processor` = the grids that the checkpoint was made with; `single` = the whole image and one
#: tile more, whatever its size.
GRIDS = ("processor", "single")


def set_grid(model: Any, processor: Any, grid: str) -> None:
    """Choose into how many tiles an image is cut, in the model and its processor alike.

    Raises:
        UserError: no such grid.
    """
    if grid not in GRIDS:
        raise UserError(f"captioner grid is {grid!r}; allowed: {', '.join(GRIDS)}")
    if grid == "single":
        side = int(model.config.vision_config.image_size)
        model.config.image_grid_pinpoints = [[side, side]]
        processor.image_processor.image_grid_pinpoints = [[side, side]]


class Images:
    """Encodes images with the vision tower of a LLaVA-NeXT.

    Use it as a context manager: a thread prepares images meanwhile.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self._model, self._processor = model, processor
        self._thread = ThreadPoolExecutor(1)
        self._waiting: dict[int, Future[tuple[Tensor, list[int]]]] = {}
        self._tokens = lru_cache(None)(self._count)

    def __enter__(self) -> Images:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown(cancel_futures=True)

    def tokens(self, image: NDArray[np.uint8]) -> int:
        """Embeddings that will stand for an image of shape (H, W, 3)."""
        height, width = image.shape[:2]
        return self._tokens(height, width)

    def prepare(self, images: Sequence[NDArray[np.uint8]]) -> None:
        """Begin to cut and scale images that are asked for soon."""
        for image in images:
            if id(image) not in self._waiting:
                self._waiting[id(image)] = self._thread.submit(self._tiles, image)

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
        """Embeddings of each image as the language model reads them, (tokens, width) each."""
        self.prepare(images)
        ready = [self._waiting.pop(id(image)).result() for image in images]
        encoded = self._model.model.get_image_features(
            torch.cat([tiles for tiles, _ in ready]).to(self._model.device, self._model.dtype),
            [size for _, size in ready],
            return_dict=True,
        )
        features: list[Tensor] = list(encoded.pooler_output)
        for image, found in zip(images, features, strict=True):
            if len(found) != self.tokens(image):
                raise UserError(
                    f"an image of shape {image.shape} has {len(found)} embeddings, expected "
                    f"{self.tokens(image)}: the captioner's processor and its model disagree about "
                    "image_grid_pinpoints or sizes. Fetch the model again."
                )
        return features

    def _tiles(self, image: NDArray[np.uint8]) -> tuple[Tensor, list[int]]:
        """(tiles, 3, side, side), and height and width."""
        inputs = self._processor.image_processor(
            [image], return_tensors="pt", input_data_format="channels_last"
        )
        return inputs["pixel_values"][0], inputs["image_sizes"][0].tolist()

    def _count(self, height: int, width: int) -> int:
        config = self._model.config
        vision = config.vision_config
        side = vision.image_size // vision.patch_size
        rows, columns = get_anyres_image_grid_shape(
            (height, width), config.image_grid_pinpoints, vision.image_size
        )
        whole = torch.empty(1, rows * side, columns * side, device="meta")
        _, kept_rows, kept_columns = unpad_image(whole, (height, width)).shape
        # A mark ends every row of patches; the small image comes first.
        return int(side * side + kept_rows * (kept_columns + 1))
