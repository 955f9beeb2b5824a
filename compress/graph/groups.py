"""Components -> groups: channels that occupy the same parameter dimensions, named after the layer that makes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from compress.core.members import Members, Slots, along
from compress.core.types import Group, Reason
from compress.graph.couplings import Pin
from compress.graph.stretches import stretches

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
    slots = _slots(analysis)
    if not slots.names:
        return ()
    fixed = pinned_components(analysis)
    found = stretches(analysis.component, slots.starts, slots.ends, fixed)
    # Channels with the same parameter dimensions, equally often, have the same sum of random 64-bit words.
    words = np.random.default_rng(0).integers(1, 2**63, size=len(slots.names), dtype=np.uint64)
    signature = np.zeros(len(found.first), dtype=np.uint64)
    np.add.at(signature, found.run, words[found.slot])
    signature[fixed[found.first]] ^= np.uint64(1 << 63)  # pinned channels never share a group with free ones
    lengths = np.bincount(found.run, minlength=len(found.first))
    runs = np.flatnonzero(lengths)
    _, first, inverse = np.unique(signature[runs], return_index=True, return_inverse=True)
    by_group = runs[np.argsort(first[inverse], kind="stable")]
    counts = np.bincount(inverse)[np.argsort(first)]
    place = np.zeros(len(lengths), dtype=np.int64)
    place[by_group] = np.arange(len(by_group))
    order = np.argsort(place[found.run], kind="stable")  # those of one run are in order already
    slot, label = found.slot[order], found.label[order]
    reads, reasons = _marked(analysis, analysis.couplings.consumed)[label], _Reasons(analysis)
    groups, at, used = [], 0, 0
    for count in counts.tolist():
        here = by_group[at : at + count]
        width = int(lengths[here[0]])  # equal signatures have equal lengths
        row = slice(used, used + width)
        heads, sizes = label[used : used + count * width].reshape(count, width).T, found.size[here]
        members, ids = Members(slots, slot[row], heads, sizes, reads[row]), along(found.first[here], sizes)
        why = reasons.of(ids, members) if fixed[ids[0]] else ()
        if not why and len(members) == 1 and not _reached(analysis, members):
            why = (Reason("the example does not reach it"),)
        groups.append(Group(members.maker.rpartition(".")[0] or members.maker, members, ids, why))
        at, used = at + count, used + count * width
    return tuple(_unique(groups))


def _slots(analysis: Analysis) -> Slots:
    """The dimensions of parameters that hold channels.

    Extents of kernels are no channels: they all stay, and no group holds them.
    """
    found = analysis.slots
    extents = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *analysis.couplings.extents], axis=None))
    owners = np.searchsorted(found.starts, extents[extents < analysis.couplings.parameter_labels], side="right") - 1
    counts = np.bincount(owners[owners >= 0], minlength=len(found.starts))
    taken = np.flatnonzero(counts < found.ends - found.starts)
    return Slots(tuple([found.names[i] for i in taken.tolist()]), found.starts[taken], found.ends[taken])


def _reached(analysis: Analysis, alone: Members) -> bool:
    """Whether channels that only one parameter holds go anywhere.

    Rows of a table that this example is too short for do not, and a longer one needs them.
    """
    wanted = alone.heads[0, 0]
    for recorded, layouts in zip(analysis.traces, analysis.layouts, strict=True):
        own = recorded.parameters.get(alone.maker)
        for value, blocks in layouts.items():
            if value != own and any((array == wanted).any() for _, array in blocks):
                return True
    return bool(alone.reads[0])


def _marked(analysis: Analysis, these: Sequence[np.ndarray]) -> np.ndarray:
    """Boolean array over labels: True for those in `these`."""
    marked = np.zeros(analysis.couplings.count, dtype=bool)
    for labels in these:
        marked[labels] = True
    return marked


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

    def of(self, channels: np.ndarray, members: Members) -> tuple[Reason, ...]:
        """Different reasons, at most three."""
        found: dict[Reason, None] = {}
        for i in np.unique(self.first[channels]):
            if i >= 0:
                found[_told(self.pins[i])] = None
        if any(m.parameter in self.unused for m in members):
            found[Reason("no forward pass reads it")] = None
        return tuple(found)[:3] or (Reason("tied to a fixed dimension"),)


def _told(pin: Pin) -> Reason:
    return Reason(pin.why) if pin.op is None else Reason(pin.why, pin.op.name, pin.op.where)
