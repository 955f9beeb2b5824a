"""Build a network without spending time or memory on the values of its weights."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from compress.checkpoint.fit import IMAGE_CHANNELS, Shapes, shapes_of
from compress.core.errors import CheckpointError

# what initialisers do to weights; on the meta device it would cost time and change nothing
_FILLERS = frozenset({"normal_", "uniform_", "fill_", "zero_", "kaiming_uniform_", "kaiming_normal_", "trunc_normal_"})


class _Unfilled(TorchFunctionMode):
    """Sends `torch.empty`, by which layers make their weights, to the meta device.

    Everything else stays real, so that constructors may compute with tensors (widths, relative positions), which
    fails under `torch.device("meta")`.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        elif getattr(func, "__name__", "") in _FILLERS:
            weight = args[0] if args else kwargs.get("tensor")
            if isinstance(weight, torch.Tensor) and weight.is_meta:
                return weight
        return func(*args, **kwargs)


def skeleton(make: Callable[[], nn.Module]) -> nn.Module:
    """Return `make()` in eval mode with most weights on the meta device; torch's random state stays as it was."""
    with _Unfilled():
        return quietly(make)


def quietly(make: Callable[[], nn.Module]) -> nn.Module:
    """Return `make()` in eval mode, without its warnings about coming defaults, leaving torch's random state."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore", FutureWarning)
        return make().eval()


@functools.cache
def torchvision_names() -> tuple[str, ...]:
    """Return the names of torchvision's classification networks."""
    from torchvision import models

    return tuple(models.list_models(models))


def torchvision_module(name: str, options: Mapping[str, Any]) -> nn.Module:
    """Return torchvision's `name`; call it within `skeleton` or `quietly`.

    `options` are its keyword arguments, and `in_channels`, which exchanges the first convolution.
    Raises CheckpointError for options that it does not take.
    """
    from torchvision import models

    options = dict(options)
    channels = options.pop("in_channels", IMAGE_CHANNELS)
    try:
        module: nn.Module = models.get_model(name, weights=None, **options)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"torchvision's {name} cannot be built with {options}: {error}",
            fix="give only options that it takes (arch_options in the file, or the ones you passed)",
        ) from error
    if channels != IMAGE_CHANNELS:
        exchange_stem(module, channels)
    return module


def exchange_stem(module: nn.Module, channels: int) -> None:
    """Replace, in place, the first convolution that reads images by one that reads `channels` channels."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d) and layer.in_channels == IMAGE_CHANNELS:
            stem = nn.Conv2d(
                channels,
                layer.out_channels,
                layer.kernel_size,  # type: ignore[arg-type]
                layer.stride,  # type: ignore[arg-type]
                layer.padding,  # type: ignore[arg-type]
                layer.dilation,  # type: ignore[arg-type]
                bias=layer.bias is not None,
                padding_mode=layer.padding_mode,
            )
            parent, _, child = name.rpartition(".")
            setattr(module.get_submodule(parent), child, stem)
            return
    raise CheckpointError(
        f"no convolution of {type(module).__name__} reads {IMAGE_CHANNELS} channels, so it cannot read {channels}",
        fix="name an architecture of your own with --arch file.py:factory",
    )


@functools.cache
def torchvision_shapes(name: str, options: tuple[tuple[str, Any], ...] = ()) -> Shapes:
    """Return the shapes of every saved tensor of torchvision's `name` built with `options`."""
    return shapes_of(skeleton(lambda: torchvision_module(name, dict(options))).state_dict())
