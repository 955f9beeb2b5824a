"""A fixed batch of inputs, from data where there is some."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from compress.core.errors import DataError
from compress.evaluation.data import Data


def calibration_batch(shape: Sequence[int], data: Data | None, n: int, seed: int = 0) -> Tensor:
    """Return `n` inputs of `shape[1:]`, float32, the same ones for the same `seed`.

    They are drawn from `data` without replacement (all of it where it has fewer), else standard normal noise.
    Raises DataError where the images of `data` have another shape.
    """
    generator = torch.Generator().manual_seed(seed)
    if data is None:
        return torch.randn((n, *shape[1:]), generator=generator)
    chosen = torch.randperm(len(data), generator=generator)[:n].tolist()
    images = [data.dataset[index][0] for index in chosen]
    odd = next((image for image in images if tuple(image.shape) != tuple(shape[1:])), None)
    if odd is not None:
        raise DataError(
            f"{data.name} gives an image of shape {tuple(odd.shape)}, but the network reads {tuple(shape[1:])}",
            fix="add --resize, or give images of the network's size",
        )
    return torch.stack(images)
