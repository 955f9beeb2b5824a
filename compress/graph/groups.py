"""Components -> groups: channels that occupy the same parameter dimensions, named after the layer that makes them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from compress.core.types import Group, Member, Reason
from compress.graph.couplings import Pin

if TYPE_CHECKING:
    from compress.graph.analyse import Analysis


def pinned_components(analysis: Analysis) -> np.ndarray:
    """Boolean array over components: True where something in it must stay."""
    fixed = np.zeros(analysis.channels, dtype=bool)
    fixed[analysis.component[0]] = True
    for pin in analysis.couplings.pins:
        fixed[analysis.component[pin.labels]] = True
    for name in analysis.unused:
        for labels in analysis.parameters[name]:
            if labels is not None:
                fixed[analysis.component[labels]] = True
    return fixed


def find_groups(analysis: Analysis) -> tuple[Group, ...]:
    """Gather the channels of every component into groups, in the order of the network's parameters."""
    slots, slot, labels = _incidence(analysis)
    if not slots:
        return ()
    comp = analysis.component[labels]
    # Channels with the same parameter dimensions, equally often, have the same sum of random 64-bit words.
    words = np.random.default_rng(0).integers(1, 2**63, size=len(slots), dtype=np.uint64)
    signature = np.zeros(analysis.channels, dtype=np.uint64)
    np.add.at(signature, comp, words[slot])
    fixed = pinned_components(analysis)
    signature[fixed] ^= np.uint64(1 << 63)  # pinned channels never share a group with free ones
    lengths = np.bincount(comp)
    channels = np.flatnonzero(lengths)
    _, first, inverse = np.unique(signature[channels], return_index=True, return_inverse=True)
    by_group = channels[np.argsort(first[inverse], kind="stable")]
    sizes = np.bincount(inverse)[np.argsort(first)]
    place = np.zeros(analysis.channels, dtype=np.int64)
    place[by_group] = np.arange(len(by_group))
    order = np.argsort(place[comp], kind="stable")  # slots and labels are in order already
    slot, labels = slot[order], labels[order]
    position = labels - np.array([start for *_, start in slots])[slot]
    reads, reasons = _marked(analysis, analysis.couplings.consumed)[labels], _Reasons(analysis)
    groups, at, used = [], 0, 0
    for size in sizes.tolist():
        ids = by_group[at : at + size]
        here = slice(used, used + size * int(lengths[ids[0]]))  # equal signatures have equal lengths
        row = slice(used, used + int(lengths[ids[0]]))
        parts = _members(slots, slot[row], reads[row], position[here].reshape(size, -1))
        groups.append(Group(_name(parts), parts, ids, reasons.of(ids, parts) if fixed[ids[0]] else ()))
        at, used = at + size, here.stop
    return tuple(_unique(groups))


Slot = tuple[str, int, int]  # parameter, dimension, its first label


def _incidence(analysis: Analysis) -> tuple[list[Slot], np.ndarray, np.ndarray]:
    """Every labelled index of every parameter: the slots, and per index its slot and its label.

    Extents of kernels are no channels: they all stay, and no group holds them.
    """
    found = analysis.slots
    extent = np.zeros(analysis.couplings.count + 1, dtype=np.int64)
    extent[1:] = np.cumsum(_marked(analysis, analysis.couplings.extents))
    sizes = found.ends - found.starts
    taken = np.flatnonzero(extent[found.ends] - extent[found.starts] < sizes)
    starts, sizes = found.starts[taken], sizes[taken]
    slots = [(*found.names[i], start) for i, start in zip(taken.tolist(), starts.tolist(), strict=True)]
    before = np.cumsum(sizes) - sizes
    return slots, np.repeat(np.arange(len(slots)), sizes), np.repeat(starts - before, sizes) + np.arange(sizes.sum())


def _members(slots: Sequence[Slot], here: np.ndarray, reads: np.ndarray, positions: np.ndarray) -> tuple[Member, ...]:
    """`here` are the slots of one channel, sorted; `positions` (channels, slots) the indices of all of them."""
    starts = np.flatnonzero(np.r_[True, here[1:] != here[:-1]])
    numbers, read = here[starts].tolist(), reads[starts].tolist()
    bounds = itertools.pairwise([*starts.tolist(), len(here)])
    return tuple(
        [
            Member(slots[number][0], slots[number][1], positions[:, a:b], not consumed)
            for number, consumed, (a, b) in zip(numbers, read, bounds, strict=True)
        ]
    )


def _marked(analysis: Analysis, these: Sequence[np.ndarray]) -> np.ndarray:
    """Boolean array over labels: True for those in `these`."""
    marked = np.zeros(analysis.couplings.count, dtype=bool)
    for labels in these:
        marked[labels] = True
    return marked


def _name(parts: Sequence[Member]) -> str:
    """Name a group after the first layer that produces its channels."""
    first = next((m for m in parts if m.produces), parts[0])
    return first.parameter.rpartition(".")[0] or first.parameter


def _unique(groups: Sequence[Group]) -> list[Group]:
    """Give every group its own name: of several after one layer, those whose channels may leave come first."""
    seen: dict[str, int] = {}
    named = list(groups)
    for i in sorted(range(len(groups)), key=lambda i: not groups[i].prunable):
        group = groups[i]
        times = seen[group.name] = seen.get(group.name, 0) + 1
        if times > 1:
            named[i] = replace(group, name=f"{group.name}#{times}")
    return named


class _Reasons:
    """Finds why pinned channels stay; the first pin of a channel speaks for it."""

    def __init__(self, analysis: Analysis) -> None:
        self.unused = set(analysis.unused)
        self.pins = analysis.couplings.pins
        self.first = np.full(analysis.channels, -1)
        for i in reversed(range(len(self.pins))):
            self.first[analysis.component[self.pins[i].labels]] = i

    def of(self, channels: np.ndarray, parts: Sequence[Member]) -> tuple[Reason, ...]:
        """Different reasons, at most three."""
        found: dict[Reason, None] = {}
        for i in np.unique(self.first[channels]):
            if i >= 0:
                found[_told(self.pins[i])] = None
        if any(m.parameter in self.unused for m in parts):
            found[Reason("no forward pass reads it")] = None
        return tuple(found)[:3] or (Reason("tied to a fixed dimension"),)


def _told(pin: Pin) -> Reason:
    return Reason(pin.why) if pin.op is None else Reason(pin.why, pin.op.name, pin.op.where)
