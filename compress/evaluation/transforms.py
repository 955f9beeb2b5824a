"""The steps from an image file to a network's input, by torchvision's transforms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from compress.core.errors import DataError
from compress.core.types import Preprocessing


def fitted_steps(steps: Preprocessing, channels: int, size: tuple[int, int] | None) -> Preprocessing:
    """Return `steps` for a network of `channels` channels and `size` (H, W).

    A single mean and std count for every channel; a crop of another size than the network's becomes one of its size,
    with the same margin. Raises DataError where mean and std are for another number of channels.
    """
    if len(steps.mean) != len(steps.std) or len(steps.mean) not in (0, 1, channels):
        raise DataError(
            f"mean {list(steps.mean)} and std {list(steps.std)} do not fit {channels} channels",
            fix=f"give 1 or {channels} numbers for each of --mean and --std",
        )
    if len(steps.mean) == 1:
        steps = replace(steps, mean=steps.mean * channels, std=steps.std * channels)
    if any(value <= 0 for value in steps.std):
        raise DataError(
            f"std {list(steps.std)} has numbers that are not positive", fix="give positive numbers to --std"
        )
    if size and size[0] == size[1] and steps.crop and steps.crop != size[0]:
        margin = (steps.resize or steps.crop) / steps.crop
        steps = replace(
            steps,
            resize=round(size[0] * margin),
            crop=size[0],
            source=f"{steps.source}, scaled from {steps.crop} to {size[0]} pixels",
        )
    return steps


def pipeline(
    steps: Preprocessing, first: Any, channels: int, size: tuple[int, int] | None, name: str
) -> tuple[Callable[[Any], Tensor], tuple[str, ...]]:
    """Return the function image -> float32 tensor (channels, H, W), and notes on what it changes beyond `steps`.

    `first` is an image of the data set; grey is repeated for colour networks. Raises DataError for other
    numbers of channels.
    """
    from torchvision.transforms import InterpolationMode, v2

    has = _channels(first, name)
    notes = []
    parts: list[Any] = [v2.ToImage()]
    if has != channels:
        if has != 1:
            raise DataError(
                f"the images of {name} have {has} channels, but the network reads {channels}",
                fix="give the data set that the network was trained for",
            )
        parts.append(v2.Lambda(lambda image: image.expand(channels, -1, -1)))
        notes.append(f"grey images are repeated to {channels} channels")
    try:
        mode = InterpolationMode(steps.interpolation)
    except ValueError as error:
        known = ", ".join(m.value for m in InterpolationMode)
        raise DataError(f"no interpolation {steps.interpolation!r}", fix=f"write one of {known}") from error
    parts += [v2.Resize(steps.resize, interpolation=mode, antialias=True)] if steps.resize else []
    parts += [v2.CenterCrop(steps.crop)] if steps.crop else []
    if size and tuple(v2.Compose(parts)(first).shape[-2:]) != size:
        parts.append(v2.Resize(list(size), interpolation=mode, antialias=True))
        notes.append(f"images are resized to {size[0]} x {size[1]}, the network's input")
    parts.append(v2.ToDtype(torch.float32, scale=True))
    parts += [v2.Normalize(list(steps.mean), list(steps.std))] if steps.mean else []
    parts.append(v2.ToPureTensor())
    return v2.Compose(parts), tuple(notes)


def _channels(image: Any, name: str) -> int:
    from torchvision.transforms import v2

    try:
        return int(v2.functional.to_image(image).shape[0])
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"the items of {name} are of type {type(image).__name__}, not images",
            fix="give PIL images, uint8 arrays (H, W, C), or float32 tensors (C, H, W)",
        ) from error
