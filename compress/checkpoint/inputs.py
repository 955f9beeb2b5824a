"""What a network takes: the shape of its input, an example of it, and the preprocessing that goes with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.checkpoint.architecture import Architecture, Home
from compress.checkpoint.statedict import Recorded
from compress.core.errors import CheckpointError, UsageError
from compress.core.types import Preprocessing

BATCH = 2
IMAGE_CROP = 0.875  # what timm takes where a network does not say


def example(shape: Sequence[int], batch: int = BATCH) -> tuple[Tensor]:
    """Return one float32 standard-normal tensor of shape (batch, *shape[1:]), the same at every call."""
    generator = torch.Generator().manual_seed(0)
    return (torch.randn((batch, *shape[1:]), generator=generator),)


def checked(shape: Sequence[int]) -> tuple[int, ...]:
    """Return `shape` (batch first); UsageError where it is not two or more positive numbers."""
    if len(shape) < 2 or any(size < 1 for size in shape):
        raise UsageError(
            f"the input shape {','.join(map(str, shape))} is not two or more positive numbers",
            fix="write the batch first, as in --input-shape 1,3,224,224",
        )
    return tuple(shape)


def require_channels(shape: Sequence[int], channels: int, what: str) -> None:
    """Raise UsageError where `shape` is not (batch, `channels`, height, width)."""
    if len(shape) != 4 or shape[1] != channels:
        raise UsageError(
            f"{what} takes images of {channels} channels, not inputs of shape {','.join(map(str, shape))}",
            fix=f"write --input-shape 1,{channels},HEIGHT,WIDTH",
        )


def shape_unknown(path: Path) -> CheckpointError:
    """Return the error for a network whose input shape nobody told."""
    return CheckpointError(
        f"{path}: the input shape of this network cannot be known from the file",
        fix="add it with the batch first, as in --input-shape 1,3,224,224",
    )


def image_channels(module: nn.Module) -> int | None:
    """Return how many channels the first weight reads if it is a convolution over images, else None."""
    first = next((value for value in module.parameters() if value.ndim > 1), None)
    return first.shape[1] if first is not None and first.ndim == 4 else None


def known_preprocessing(arch: Architecture, module: nn.Module, path: Path, channels: int) -> Preprocessing | None:
    """Return the preprocessing that torchvision or timm documents for `arch`; mean and std only where they fit."""
    found = {Home.TORCHVISION: _torchvision, Home.TIMM: _timm}.get(arch.home, _none)(arch.name, module, path)
    if found is not None and len(found.mean) not in (0, channels):
        source = f"{found.source}, whose mean and std are for {len(found.mean)} channels"
        return replace(found, mean=(), std=(), source=source)
    return found


def recorded_preprocessing(recorded: Recorded, known: Preprocessing | None) -> Preprocessing | None:
    """Return what the file records, over what is `known`; a recorded mean replaces the known steps altogether."""
    if recorded.mean or recorded.resize:
        return Preprocessing(mean=recorded.mean, std=recorded.std, resize=recorded.resize, source="the checkpoint")
    return known


def _none(name: str, module: nn.Module, path: Path) -> Preprocessing | None:
    return None


def _torchvision(name: str, module: nn.Module, path: Path) -> Preprocessing | None:
    """Take the steps of the weights whose file name this is, else of the default ones at the network's own size."""
    from torchvision import models

    weights: Any = models.get_model_weights(name)
    entries = [entry for entry in weights if entry.url.rpartition("/")[2] == path.name]
    entries += [weights.DEFAULT, *weights] if len(weights) else []
    size = getattr(module, "image_size", None)
    for entry in entries:
        steps = entry.transforms()
        if size in (None, steps.crop_size[0]):
            return Preprocessing(
                mean=tuple(steps.mean),
                std=tuple(steps.std),
                resize=int(steps.resize_size[0]),
                crop=int(steps.crop_size[0]),
                interpolation=str(steps.interpolation.value),
                source=f"torchvision {entry}",
            )
    return None


def _timm(name: str, module: nn.Module, path: Path) -> Preprocessing | None:
    settings: Any = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None) or {}
    if "input_size" not in settings:
        return None
    side = int(settings["input_size"][-1])
    return Preprocessing(
        mean=tuple(map(float, settings.get("mean", ()))),
        std=tuple(map(float, settings.get("std", ()))),
        resize=math.floor(side / float(settings.get("crop_pct") or IMAGE_CROP)),
        crop=side,
        interpolation=str(settings.get("interpolation") or "bilinear"),
        source=f"timm {name}",
    )
