"""Build the architecture that a text names: `resnet18`, `torchvision:resnet18`, `timm:NAME`, `file.py:factory`."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from torch import nn

from compress.checkpoint.fit import Shapes, materialise, shapes_of
from compress.checkpoint.skeleton import quietly, skeleton, torchvision_module, torchvision_names, torchvision_shapes
from compress.checkpoint.source import call_factory, is_file_spec
from compress.core.errors import CheckpointError


class Home(StrEnum):
    """Where an architecture's code lives."""

    TORCHVISION = "torchvision"
    TIMM = "timm"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Architecture:
    """A named architecture; `str()` is the text that names it again."""

    home: Home
    name: str

    def __str__(self) -> str:
        """Return the text that `parse` reads."""
        return self.name if self.home is Home.FILE else f"{self.home}:{self.name}"

    def module(self, options: Mapping[str, Any]) -> nn.Module:
        """Return the network with its own initial weights; CheckpointError where it cannot be built."""
        if self.home is Home.TORCHVISION:
            return torchvision_module(self.name, options)
        if self.home is Home.TIMM:
            return _timm_module(self.name, options)
        module = call_factory(self.name, options)
        if not isinstance(module, nn.Module):
            raise CheckpointError(
                f"{self.name} returned a {type(module).__name__}, not a torch.nn.Module",
                fix="name a function or class that gives the network",
            )
        return module

    def shapes(self, options: Mapping[str, Any]) -> Shapes:
        """Return the shapes of every tensor that a checkpoint of the network built with `options` holds."""
        if self.home is Home.TORCHVISION:
            return torchvision_shapes(self.name, tuple(sorted(options.items())))
        return shapes_of(self.unfilled(options).state_dict())

    def unfilled(self, options: Mapping[str, Any]) -> nn.Module:
        """Return the network with most weights on the meta device.

        Code from files is built for real: it may look at its weights.
        """
        if self.home is Home.FILE:
            return quietly(lambda: self.module(options))
        return skeleton(lambda: self.module(options))

    def switches(self, options: Mapping[str, Any]) -> list[dict[str, bool]]:
        """Return the yes-or-no options of the constructor, each turned from its default."""
        if self.home is not Home.TORCHVISION:
            return []
        parameters = inspect.signature(type(self.unfilled(options)).__init__).parameters.values()
        return [{p.name: not p.default} for p in parameters if isinstance(p.default, bool) and p.name not in options]


def parse(text: str) -> Architecture:
    """Return the architecture that `text` names; CheckpointError where there is none of that name.

    >>> str(parse("resnet18")), str(parse("models/vgg.py:vgg19"))
    ('torchvision:resnet18', 'models/vgg.py:vgg19')
    """
    if is_file_spec(text):
        return Architecture(Home.FILE, text)
    home, colon, name = text.partition(":")
    if not colon:
        home, name = Home.TORCHVISION, text
    if home == Home.TIMM:
        return Architecture(Home.TIMM, name)
    if home != Home.TORCHVISION:
        raise CheckpointError(
            f"{text!r} names no architecture",
            fix="write a torchvision name (resnet18), timm:NAME, or path/to/file.py:factory",
        )
    if name not in torchvision_names():
        near = difflib.get_close_matches(name, torchvision_names(), n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}? Else write" if near else "write"
        raise CheckpointError(
            f"torchvision has no classification network {name!r}", fix=f"{hint} timm:NAME or path/to/file.py:factory"
        )
    return Architecture(Home.TORCHVISION, name)


def build(arch: str, options: Mapping[str, Any] | None = None) -> nn.Module:
    """Return the architecture that `arch` names, in eval mode, its weights not trained (zeros or initial values).

    Raises CheckpointError where the name is unknown or the options do not fit. `file.py:factory` is executed.
    """
    named = parse(arch)
    module = named.unfilled(options or {})
    materialise(module)
    return module


def _timm_module(name: str, options: Mapping[str, Any]) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise CheckpointError(
            f"timm:{name} needs the package timm, which is not installed", fix="pip install timm"
        ) from error
    options = dict(options)
    if "in_channels" in options:
        options["in_chans"] = options.pop("in_channels")
    try:
        module: nn.Module = timm.create_model(name, pretrained=False, **options)
    except RuntimeError as error:
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4)
        raise CheckpointError(
            f"timm cannot build {name!r}: {error}", fix=f"nearest names: {', '.join(near)}"
        ) from error
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"timm's {name} cannot be built with {options}: {error}", fix="give only options that it takes"
        ) from error
    return module
