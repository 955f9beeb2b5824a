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
    slots, slot, position, comp = _incidence(analysis)
    if not slots:
        return ()
    # Channels with the same parameter dimensions, equally often, have the same sum of random 64-bit words.
    words = np.random.default_rng(0).integers(1, 2**63, size=len(slots), dtype=np.uint64)
    signature = np.zeros(analysis.channels, dtype=np.uint64)
    np.add.at(signature, comp, words[slot])
    fixed = pinned_components(analysis)
    signature[fixed] ^= np.uint64(1 << 63)  # pinned channels never share a group with free ones
    order = np.argsort(comp, kind="stable")  # slots and positions are in order already
    slot, position, comp = slot[order], position[order], comp[order]
    starts = np.flatnonzero(np.r_[True, comp[1:] != comp[:-1]])
    lengths = np.diff(np.r_[starts, len(comp)])
    channels = comp[starts]
    _, first, inverse = np.unique(signature[channels], return_index=True, return_inverse=True)
    by_group = np.argsort(inverse, kind="stable")
    ends = np.cumsum(np.bincount(inverse))
    reads, reasons = _marked(analysis, analysis.couplings.consumed), _Reasons(analysis)
    groups = []
    for g in np.argsort(first, kind="stable"):
        members = by_group[ends[g - 1] if g else 0 : ends[g]]
        rows = starts[members][:, None] + np.arange(lengths[members[0]])  # equal signatures have equal lengths
        parts = _members(analysis, slots, slot[rows[0]], position[rows], reads)
        ids = channels[members]
        why = reasons.of(ids, parts) if fixed[ids[0]] else ()
        groups.append(Group(_name(parts), parts, ids, why))
    return tuple(_unique(groups))


def _incidence(analysis: Analysis) -> tuple[list[tuple[str, int]], np.ndarray, np.ndarray, np.ndarray]:
    """Every labelled index of every parameter: the slots (name, dim), and per index its slot, position, component.

    Extents of kernels are no channels: they all stay, and no group holds them.
    """
    found = analysis.slots
    extent = np.zeros(analysis.couplings.count + 1, dtype=np.int64)
    extent[1:] = np.cumsum(_marked(analysis, analysis.couplings.extents))
    sizes = found.ends - found.starts
    taken = np.flatnonzero(extent[found.ends] - extent[found.starts] < sizes)
    slots, sizes = [found.names[i] for i in taken.tolist()], sizes[taken]
    slot = np.repeat(np.arange(len(slots)), sizes)
    position = np.arange(len(slot)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return slots, slot, position, analysis.component[np.repeat(found.starts[taken], sizes) + position]


def _members(
    analysis: Analysis, slots: Sequence[tuple[str, int]], here: np.ndarray, positions: np.ndarray, reads: np.ndarray
) -> tuple[Member, ...]:
    """`here` are the slots of one channel, sorted; `positions` (channels, slots) the indices of all of them."""
    bounds = [0, *(np.flatnonzero(here[1:] != here[:-1]) + 1).tolist(), len(here)]
    parts = []
    for a, b in itertools.pairwise(bounds):
        name, dim = slots[int(here[a])]
        labels = analysis.parameters[name][dim]
        assert labels is not None
        indices = positions[:, a:b]
        parts.append(Member(name, dim, indices, produces=not bool(reads[labels[indices[0, 0]]])))
    return tuple(parts)


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
