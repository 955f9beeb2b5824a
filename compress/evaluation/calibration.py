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
    if data is None:
        return torch.randn((n, *shape[1:]), generator=torch.Generator().manual_seed(seed))
    return calibration_set(shape, data, n, seed)[0]


def calibration_set(shape: Sequence[int], data: Data, n: int, seed: int = 0) -> tuple[Tensor, Tensor | None]:
    """Return what `calibration_batch` does, and the labels, int64 (n,), or None where `data` has none."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(data), generator=generator)[:n].tolist()
    items = [data.dataset[index] for index in chosen]
    images = [image for image, _ in items]
    odd = next((image for image in images if tuple(image.shape) != tuple(shape[1:])), None)
    if odd is not None:
        raise DataError(
            f"{data.name} gives an image of shape {tuple(odd.shape)}, but the network reads {tuple(shape[1:])}",
            fix="add --resize, or give images of the network's size",
        )
    return torch.stack(images), torch.tensor([label for _, label in items]) if data.labelled else None
