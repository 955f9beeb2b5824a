"""Mirrored and shifted images, a whole batch at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class Shifts:
    """What happens to every image of a batch: int64 (N,) offsets into the padded image, and bool (N,) mirrors."""

    top: Tensor
    left: Tensor
    mirrored: Tensor

    def part(self, of: slice) -> Shifts:
        """Return what happens to some of the images."""
        return Shifts(self.top[of], self.left[of], self.mirrored[of])


def drawn(images: int, pad: int, flip: bool, seed: int, step: int) -> Shifts:
    """Draw the changes of a batch of `images`: the same for the same `seed` and `step`, whatever was drawn before."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    top, left = torch.randint(2 * pad + 1, (2, images), generator=generator)
    chance = torch.rand(images, generator=generator)
    return Shifts(top, left, chance < 0.5 if flip else torch.zeros(images, dtype=torch.bool))


def changed(images: Tensor, shifts: Shifts, pad: int, fill: Tensor | None) -> Tensor:
    """Pad images (N, C, H, W) by `pad`, crop each at its offset to its old size, and mirror it where it says so.

    `fill` (C,) is what the border holds, in the images' own scale: black, after normalisation; None is 0. Inputs that
    are no images are returned as they are.

    >>> image = torch.arange(4.0).view(1, 1, 2, 2)
    >>> still = Shifts(torch.tensor([0]), torch.tensor([0]), torch.tensor([True]))
    >>> changed(image, still, 0, None).flatten().tolist()
    [1.0, 0.0, 3.0, 2.0]
    """
    if images.ndim != 4 or (pad == 0 and not bool(shifts.mirrored.any())):
        return images
    n, c, h, w = images.shape
    device = images.device
    rows = shifts.top[:, None] + torch.arange(h)
    columns = shifts.left[:, None] + torch.arange(w)
    columns = torch.where(shifts.mirrored[:, None], columns.flip(1), columns)
    border = torch.zeros(c, device=device) if fill is None else fill.to(device)
    border = border.to(images.dtype).view(1, c, 1, 1)
    padded = F.pad(images - border, (pad,) * 4) + border if pad else images
    item, channel = torch.arange(n, device=device).view(n, 1, 1, 1), torch.arange(c, device=device).view(1, c, 1, 1)
    return padded[item, channel, rows.to(device).view(n, 1, h, 1), columns.to(device).view(n, 1, 1, w)]
