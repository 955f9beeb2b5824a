"""Which architecture has exactly these keys and shapes.

Networks of one torchvision file resemble each other, so one of each file is built first (without weights), the file
whose keys look most alike is searched whole, and the others only where nothing was found there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compress.checkpoint.architecture import Architecture, Home, parse
from compress.checkpoint.fit import Difference, Shapes, compare, free_sizes
from compress.checkpoint.skeleton import torchvision_names
from compress.core.errors import CheckpointError

CLASSES = 1000
ALIKE = 0.5
NEAREST = 3


@dataclass(frozen=True, slots=True)
class Fit:
    """An architecture with the options under which it comes nearest to a file, and what then still differs."""

    arch: Architecture
    options: Mapping[str, Any]
    difference: Difference

    def likeness(self, found: Shapes) -> float:
        """Return the fraction of all tensors, the file's and the architecture's, that agree; 1 where it fits."""
        agreeing = len(found) - len(self.difference.unexpected) - len(self.difference.reshaped)
        return agreeing / max(agreeing + self.difference.count, 1)


def fit(arch: Architecture, found: Shapes, given: Mapping[str, Any]) -> Fit:
    """Return the options, beyond those `given`, under which `arch` comes nearest to the shapes `found`.

    The number of classes and of input channels are read from the shapes; parts of the network that the file
    lacks (auxiliary heads) are switched off where the constructor has a switch for them.
    Raises CheckpointError where `arch` cannot be built with the options `given`.
    """
    best = _sized(arch, found, given)
    if _whole_parts_lacking(best.difference, found):
        variants = [_sized(arch, found, {**given, **switch}) for switch in arch.switches(given)]
        best = min([best, *variants], key=lambda variant: variant.difference.count)
    return best


def _whole_parts_lacking(difference: Difference, found: Shapes) -> bool:
    """Whether all that the file lacks are top-level parts of which it has nothing."""
    present = {name.partition(".")[0] for name in found}
    lacking = {name.partition(".")[0] for name in difference.missing}
    return bool(lacking) and not lacking & present and not difference.unexpected


def _sized(arch: Architecture, found: Shapes, given: Mapping[str, Any]) -> Fit:
    expected = arch.shapes(given)
    difference = compare(expected, found)
    if arch.home is Home.FILE or not difference.reshaped:
        return Fit(arch, given, difference)
    sizes = free_sizes(expected, found, int(given.get("num_classes", CLASSES)))
    options = {**sizes, **given}
    if options == dict(given):
        return Fit(arch, given, difference)
    try:
        return Fit(arch, options, compare(arch.shapes(options), found))
    except CheckpointError:  # no first convolution to exchange: this one does not fit
        return Fit(arch, given, difference)


def identify(found: Shapes) -> Fit:
    """Return the one torchvision network that has the keys and shapes `found`.

    Raises CheckpointError where none or several have; it lists the nearest ones and what differs.
    """
    tried = candidates(found)
    matches = [one for one in tried if one.difference.count == 0]
    if len(matches) == 1:
        return matches[0]
    if matches:
        names_of = ", ".join(one.arch.name for one in matches)
        raise CheckpointError(
            f"the tensors fit several architectures alike: {names_of}",
            fix=f"say which one it is, as in --arch {matches[0].arch.name}",
        )
    nearest = [f"\n    {one.arch.name}: the file {one.difference}" for one in tried[:NEAREST]]
    raise CheckpointError(
        f"the {len(found)} tensors fit none of torchvision's {len(tried)} architectures; nearest:{''.join(nearest)}",
        fix="name yours: --arch path/to/file.py:factory, --arch timm:NAME, or --arch NAME for torchvision",
    )


def candidates(found: Shapes) -> list[Fit]:
    """Return torchvision's networks, those most like `found` first; only the relatives of one that fits."""
    tried: list[Fit] = []
    for names in _by_likeness(found):
        tried += [_quick(parse(name), found) for name in names]
        if any(one.difference.count == 0 for one in tried):
            break
    return sorted(tried, key=lambda one: -one.likeness(found))


def _quick(arch: Architecture, found: Shapes) -> Fit:
    """Like `fit`, without building variants of networks whose keys are far from those of the file."""
    difference = compare(arch.shapes({}), found)
    return Fit(arch, {}, difference) if difference.unexpected else fit(arch, found, {})


def _by_likeness(found: Shapes) -> list[list[str]]:
    """Group torchvision's networks by the file that defines them, most alike first; all alike ones together."""
    from torchvision import models

    homes: dict[str, list[str]] = {}
    for name in torchvision_names():
        homes.setdefault(models.get_model_builder(name).__module__, []).append(name)
    words = _vocabulary(found)
    likeness = {home: _overlap(words, _vocabulary(parse(names[0]).shapes({}))) for home, names in homes.items()}
    order = sorted(homes, key=lambda home: -likeness[home])
    alike = [name for home in order if likeness[home] >= ALIKE for name in homes[home]]
    others = [name for home in order if likeness[home] < ALIKE for name in homes[home]]
    return [names for names in (alike, others) if names]


def _vocabulary(shapes: Shapes) -> frozenset[str]:
    return frozenset(re.sub(r"\d+", "#", name) for name in shapes)


def _overlap(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / max(len(one | other), 1)
