"""Whether tensors fit an architecture, what differs where they do not, and putting them into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Shapes = Mapping[str, tuple[int, ...]]

IMAGE_CHANNELS = 3
SHOWN = 3


@dataclass(frozen=True, slots=True)
class Difference:
    """How a file's tensors differ from an architecture's; empty where they fit."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]

    @property
    def count(self) -> int:
        """Number of tensors that differ."""
        return len(self.missing) + len(self.unexpected) + len(self.reshaped)

    def __str__(self) -> str:
        """Name the first few tensors of every kind, and how many there are."""
        kinds = [("lacks", self.missing), ("has in addition", self.unexpected), ("has other shapes for", self.reshaped)]
        return "; ".join(f"{verb} {_first(names)}" for verb, names in kinds if names) or "fits"


def _first(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{len(names)} ({', '.join(names[:SHOWN])}{more})"


def shapes_of(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return every tensor's shape under its name; what modules keep beside tensors is left out."""
    return {name: tuple(value.shape) for name, value in state.items() if isinstance(value, Tensor)}


def compare(expected: Shapes, found: Shapes) -> Difference:
    """Return what in `found` differs from `expected`.

    Files from before BatchNorm counted its batches lack `num_batches_tracked`; that is no difference.
    """
    missing = tuple(k for k in expected if k not in found and not k.endswith("num_batches_tracked"))
    unexpected = tuple(k for k in found if k not in expected)
    reshaped = tuple(
        f"{k}: {list(found[k])} instead of {list(expected[k])}"
        for k in expected
        if k in found and expected[k] != found[k]
    )
    return Difference(missing, unexpected, reshaped)


def free_sizes(expected: Shapes, found: Shapes, classes: int) -> dict[str, int]:
    """Return the number of classes and of input channels by which `found` may differ from `expected`.

    A guess from tensors that differ in dimension 0, `classes` long in `expected` (a classifier), or in dimension 1,
    3 long in `expected` (the first convolution). The caller builds the network again and compares.

    >>> free_sizes({"conv": (8, 3, 3, 3), "fc": (1000, 8)}, {"conv": (8, 1, 3, 3), "fc": (10, 8)}, 1000)
    {'in_channels': 1, 'num_classes': 10}
    """
    sizes: dict[str, int] = {}
    for name, shape in expected.items():
        other = found.get(name, shape)
        if len(other) != len(shape):
            continue
        dims = [d for d in range(len(shape)) if shape[d] != other[d]]
        if dims == [0] and shape[0] == classes:
            sizes.setdefault("num_classes", other[0])
        elif dims == [1] and len(shape) > 2 and shape[1] == IMAGE_CHANNELS:
            sizes.setdefault("in_channels", other[1])
    return sizes


def fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    """Put `tensors` into `module` without copying them; False where parts of `module` still have no values.

    `tensors` must fit (see `compare`). Parameters become the given tensors themselves.
    """
    module.load_state_dict(dict(tensors), strict=True, assign=True)
    return not any(value.is_meta for value in tensors_within(module))


def tensors_within(module: nn.Module) -> list[Tensor]:
    """Return parameters, buffers (also those that are not saved), and tensors kept as plain attributes."""
    plain = [value for part in module.modules() for value in vars(part).values() if isinstance(value, Tensor)]
    return [*module.parameters(), *module.buffers(), *plain]


def materialise(module: nn.Module) -> None:
    """Give every parameter and buffer on the meta device zeros, in place; tied tensors stay tied."""
    made: dict[Tensor, Tensor] = {}
    for part in module.modules():
        for table in (part._parameters, part._buffers):
            for name, value in table.items():
                if value is None or not value.is_meta:
                    continue
                if value not in made:
                    zeros = torch.zeros(value.shape, dtype=value.dtype)
                    made[value] = nn.Parameter(zeros, value.requires_grad) if isinstance(value, nn.Parameter) else zeros
                table[name] = made[value]  # type: ignore[assignment]
