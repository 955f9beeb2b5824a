"""What torchvision does when it loads the weights that it publishes, done with a file's tensors instead.

Its builders rename old keys and set switches (the first step of googlenet's forward pass) only when given one of its
published weights. They are given one here whose tensors come from the user's file, so that none of it is written twice.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from compress.checkpoint.architecture import Architecture, Home
from compress.checkpoint.skeleton import quietly, skeleton


def renamed(arch: Architecture, options: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Return `tensors` under today's names where torchvision's own loading takes them into `arch`, else None."""
    if arch.home is not Home.TORCHVISION or "in_channels" in options:
        return None
    try:
        module = quietly(lambda: _loaded(arch.name, options, tensors))
    except (RuntimeError, TypeError, ValueError):
        return None
    return {name: value.detach() for name, value in module.state_dict().items()}


def published_switches(arch: Architecture, options: Mapping[str, Any]) -> dict[str, bool]:
    """Return the yes-or-no options that torchvision sets with its published weights and that no tensor shows.

    Empty for most networks. `options` are those that are known already.
    """
    plain = arch.unfilled(options)
    named = inspect.signature(type(plain).__init__).parameters.values()
    flags = [p.name for p in named if isinstance(p.default, bool) and p.name in vars(plain) and p.name not in options]
    flags = [flag for flag in flags if _invisible(arch, options, flag, not getattr(plain, flag))]
    if arch.home is not Home.TORCHVISION or not flags:
        return {}
    sized = {key: value for key, value in options.items() if key == "num_classes"}
    tensors = arch.unfilled(sized).state_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # loading into weights without values does nothing, as meant
        other = skeleton(lambda: _loaded(arch.name, sized, tensors))
    return {flag: getattr(other, flag) for flag in flags if getattr(other, flag) != getattr(plain, flag)}


def is_published(arch: Architecture, path: Path) -> bool:
    """Tell whether the file has the name, with its checksum, under which torchvision publishes weights for `arch`."""
    from torchvision import models

    if arch.home is not Home.TORCHVISION:
        return False
    return any(entry.url.rpartition("/")[2] == path.name for entry in models.get_model_weights(arch.name))


def _invisible(arch: Architecture, options: Mapping[str, Any], flag: str, value: bool) -> bool:
    return arch.shapes({**options, flag: value}) == arch.shapes(options)


def _loaded(name: str, options: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return torchvision's `name` as it builds it from published weights, with `tensors` in their place."""
    from torchvision import models

    real: Any = models.get_model_weights(name).DEFAULT
    entry: Any = object.__new__(type(real))
    entry.__dict__.update(vars(real))
    entry._value_ = copy.copy(real.value)
    if "num_classes" in options:
        object.__setattr__(entry._value_, "meta", {**real.value.meta, "categories": [""] * int(options["num_classes"])})
    entry.get_state_dict = lambda *args, **kwargs: dict(tensors)
    module: nn.Module = models.get_model(name, weights=entry, **options)
    return module
