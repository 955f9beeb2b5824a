"""Rows for a regression: what a layer reads and makes at randomly chosen places of its result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.graph.rewrite import Bound


@dataclass(frozen=True, slots=True)
class Sliding:
    """How a convolution's kernel moves: extents of the kernel, and per dimension its steps, padding and spread."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    @staticmethod
    def of(kernel: Sequence[int], arguments: Bound) -> Sliding:
        """Read the arguments of aten.convolution; a single number counts for every dimension."""

        def given(key: str) -> tuple[int, ...]:
            numbers = [int(n) for n in arguments[key]]
            return tuple(numbers * len(kernel) if len(numbers) == 1 else numbers)

        return Sliding(tuple(kernel), given("stride"), given("padding"), given("dilation"))


@dataclass(frozen=True, slots=True)
class Rows:
    """Chosen places: `image` (rows,) in rising order, and `place` (dimensions, rows), the index in every extent."""

    image: Tensor
    place: Tensor
    images: int
    extents: tuple[int, ...]

    def training(self, held_out: float) -> Tensor:
        """Boolean (rows,): all but the last `held_out` of the images."""
        return self.image < self.images - max(int(self.images * held_out), 1)


def chosen(images: int, extents: tuple[int, ...], limit: int, seed: int, device: torch.device) -> Rows:
    """At most `limit` random places of a result (images, channels, *extents); all of them where there are fewer."""
    count = images * math.prod(extents)
    flat = torch.arange(count)
    if count > limit:
        flat = torch.randint(count, (limit,), generator=torch.Generator().manual_seed(seed)).sort().values
    place = []
    for extent in reversed(extents):
        place.append(flat % extent)
        flat = flat // extent
    index = torch.stack(place[::-1]) if place else torch.zeros(0, len(flat), dtype=torch.int64)
    return Rows(flat.to(device), index.to(device), images, extents)


def at(result: Tensor, rows: Rows) -> Tensor:
    """The channels of a result (images, channels, *extents) at the rows: (rows, channels)."""
    return result[rows.image, :, *rows.place] if rows.extents else result[rows.image]


def patches(x: Tensor, rows: Rows, sliding: Sliding | None) -> Tensor:
    """What the kernel reads of x (images, channels, *) for each row: (rows, channels, taps)."""
    if sliding is None:
        return at(x, rows)[..., None]
    if any(sliding.padding):
        x = F.pad(x, [n for p in reversed(sliding.padding) for n in (p, p)])
    spots = []
    taps = torch.cartesian_prod(*(torch.arange(k, device=x.device) for k in sliding.kernel)).reshape(
        -1, len(sliding.kernel)
    )
    for d, place in enumerate(rows.place):
        spots.append(place[:, None] * sliding.stride[d] + taps[:, d] * sliding.dilation[d])
    return x[rows.image[:, None], :, *spots].transpose(1, 2)
