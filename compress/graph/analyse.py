"""Trace -> groups: run the rules over the trace, find what leaves together, and what can leave at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

from compress.core.types import Attention, Group, Member
from compress.graph.couplings import Couplings, Layout, Pin, label_parameters, operands
from compress.graph.rules.elementwise import pointwise
from compress.graph.rules.table import RULES
from compress.graph.trace import Op, Trace, tensors_of, trace

ParameterLabels = Mapping[str, tuple[np.ndarray | None, ...]]


@dataclass(frozen=True)
class Analysis:
    """What the graph stage knows about a network.

    `parameters` holds the labels of every parameter and buffer, an array a dimension (None: size 1). `component[label]` is the
    channel a label belongs to; component of label 0 is fixed. `couplings` and `traces` are one a pass (evaluation
    first, then training where some parameters are used only there). `unknown` names operators without a rule.
    """

    attention: Attention
    parameters: ParameterLabels
    shapes: Mapping[str, tuple[int, ...]]
    component: np.ndarray
    traces: tuple[Trace, ...]
    layouts: tuple[Mapping[int, Layout], ...]
    couplings: Couplings
    unknown: Mapping[str, str]
    unused: tuple[str, ...]

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """All groups of channels, prunable and pinned, in the order of the network."""
        return _groups(self)

    @property
    def prunable(self) -> tuple[Group, ...]:
        """The groups whose channels may leave."""
        return tuple(g for g in self.groups if g.prunable)


def apply_rule(couplings: Couplings, op: Op) -> bool:
    """Let the operator's rule run; False where there is none and what it touches was pinned."""
    couplings.op = op
    values = operands(op)
    if values and all(v in couplings.const for v in values):
        couplings.const.update(op.outs)
    found = RULES.get(op.name)
    if found is not None:
        found(couplings, op)
        return True
    if torch.Tag.pointwise in op.func.tags:
        pointwise(couplings, op)
        return True
    touched = False
    for v in values:
        touched = touched or bool(couplings.layout(v))
        couplings.fix_all(v, f"{op.name} has no rule")
    for out in op.outs:
        if out not in values:
            couplings.set(out, [])
    return not touched


def analyse(module: nn.Module, example: tuple[Any, ...], *, attention: Attention = Attention.HEADS) -> Analysis:
    """Find the channels of `module`, which is left untouched. Raises TraceError where it does not run."""
    tensors = tensors_of(module)
    traces = [trace(module, example)]
    unused = [n for n, p in module.named_parameters() if n not in traces[0].parameters]
    if unused:  # auxiliary heads run in training only, and read channels too
        try:
            traces.append(trace(module, example, train=True))
        except Exception:  # noqa: BLE001, S110 - what cannot be run cannot be coupled: reported as unused below
            pass
    return _analyse(tensors, traces, attention)


def _analyse(tensors: Mapping[str, Tensor], traces: Sequence[Trace], attention: Attention) -> Analysis:
    couplings = Couplings(attention, [])
    labels: dict[str, tuple[np.ndarray | None, ...]] = {}
    for name, tensor in tensors.items():
        labels[name] = tuple(couplings.fresh(size) if size > 1 else None for size in tensor.shape)
    couplings.parameter_labels = couplings.count
    unknown: dict[str, str] = {}
    used: set[str] = set()
    layouts: list[Mapping[int, Layout]] = []
    for recorded in traces:
        couplings.shapes, couplings.constants = recorded.shapes, recorded.constants
        couplings.layouts, couplings.const = {}, set()
        used.update(recorded.parameters)
        label_parameters(couplings, recorded, labels)
        for op in recorded.ops:
            if not apply_rule(couplings, op):
                unknown.setdefault(op.name, op.where)
        couplings.op = None
        for out in recorded.outputs:
            couplings.fix_all(out, "output of the network")
        layouts.append(couplings.layouts)
    component = _settle(couplings)
    unused = tuple(name for name in tensors if name not in used and tensors[name].dim() > 0)
    shapes = {name: tuple(t.shape) for name, t in tensors.items()}
    return Analysis(attention, labels, shapes, component, tuple(traces), tuple(layouts), couplings, unknown, unused)


def _settle(c: Couplings) -> np.ndarray:
    """Connect what is tied; where a split channel block would not stay rectangular, tie until it does."""
    component = _components(c)
    pending = {array.tobytes(): array for array in c.splits}
    while pending:
        tied = False
        for key, array in list(pending.items()):
            now = component[array]
            varying = [a for a in range(array.ndim) if not (now == np.take(now, [0], a)).all()]
            if len(varying) <= 1:
                del pending[key]
                continue
            carry = max(varying, key=lambda a: array.shape[a])
            for axis in varying:
                if axis != carry:
                    first = np.take(array, [0], axis)
                    c.ties.append((np.broadcast_to(first, array.shape).ravel(), array.ravel()))
            tied = True
        if not tied:
            break
        component = _components(c)
    return component


def _components(c: Couplings) -> np.ndarray:
    rows = np.concatenate([np.zeros(0, np.int64), *(one for one, _ in c.ties)])
    cols = np.concatenate([np.zeros(0, np.int64), *(two for _, two in c.ties)])
    graph = coo_array((np.ones(len(rows), dtype=np.int8), (rows, cols)), shape=(c.count, c.count))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def pinned_components(analysis: Analysis) -> np.ndarray:
    """Boolean array over components: True where something in it must stay."""
    fixed = np.zeros(int(analysis.component.max()) + 1, dtype=bool)
    fixed[analysis.component[0]] = True
    for pin in analysis.couplings.pins:
        fixed[analysis.component[pin.labels]] = True
    return fixed


def _incidence(analysis: Analysis) -> tuple[list[tuple[str, int]], np.ndarray, np.ndarray, np.ndarray]:
    """Every labelled index of every parameter: the slots (name, dim), and per index its slot, position, component."""
    slots, sizes, comps = [], [], []
    for name, dims in analysis.parameters.items():
        for dim, labels in enumerate(dims):
            if labels is not None:
                slots.append((name, dim))
                sizes.append(len(labels))
                comps.append(analysis.component[labels])
    if not slots:
        empty = np.zeros(0, np.int64)
        return [], empty, empty, empty
    slot = np.repeat(np.arange(len(slots)), sizes)
    position = np.concatenate([np.arange(n) for n in sizes])
    return slots, slot, position, np.concatenate(comps)


def _groups(analysis: Analysis) -> tuple[Group, ...]:
    slots, slot, position, comp = _incidence(analysis)
    if not slots:
        return ()
    count = int(analysis.component.max()) + 1
    # Channels with the same parameter dimensions, equally often, have the same sum of random 64-bit words.
    words = np.random.default_rng(0).integers(1, 2**63, size=len(slots), dtype=np.uint64)
    signature = np.zeros(count, dtype=np.uint64)
    np.add.at(signature, comp, words[slot])
    fixed = pinned_components(analysis)
    for name in analysis.unused:
        for labels in analysis.parameters[name]:
            if labels is not None:
                fixed[analysis.component[labels]] = True
    order = np.lexsort((position, slot, comp))
    slot, position, comp = slot[order], position[order], comp[order]
    starts = np.flatnonzero(np.r_[True, comp[1:] != comp[:-1]])
    stops = np.r_[starts[1:], len(comp)]
    channels = comp[starts]
    by_group: dict[tuple[int, bool], list[int]] = {}
    for i, channel in enumerate(channels):
        by_group.setdefault((int(signature[channel]), bool(fixed[channel])), []).append(i)
    reads = _reading(analysis)
    reasons = _Reasons(analysis)
    groups = []
    for (_, is_fixed), members in by_group.items():
        spans = [(int(starts[i]), int(stops[i])) for i in members]
        rows = np.stack([np.arange(a, b) for a, b in spans])  # equal signatures have equal lengths
        parts = []
        slots_here = slot[rows[0]]
        for s in np.unique(slots_here):
            where = np.flatnonzero(slots_here == s)
            name, dim = slots[int(s)]
            indices = position[rows[:, where]]
            labels = analysis.parameters[name][dim]
            assert labels is not None
            parts.append(Member(name, dim, indices, produces=not bool(reads[labels[indices[0, 0]]])))
        ids = channels[np.array(members)]
        why = reasons.of(ids, parts) if is_fixed else ()
        groups.append(Group(_name(parts), tuple(parts), ids, why))
    return tuple(_unique(groups))


def _reading(analysis: Analysis) -> np.ndarray:
    reads = np.zeros(analysis.couplings.count, dtype=bool)
    for labels in analysis.couplings.consumed:
        reads[labels] = True
    return reads


def _name(parts: Sequence[Member]) -> str:
    """Name a group after the first layer that produces its channels."""
    first = next((m for m in parts if m.produces), parts[0])
    return first.parameter.rpartition(".")[0] or first.parameter


def _unique(groups: Sequence[Group]) -> list[Group]:
    seen: dict[str, int] = {}
    named = []
    for group in groups:
        times = seen[group.name] = seen.get(group.name, 0) + 1
        name = group.name if times == 1 else f"{group.name}#{times}"
        named.append(Group(name, group.members, group.labels, group.pinned))
    return named


class _Reasons:
    """Finds why pinned channels stay; the first pin of a channel speaks for it."""

    def __init__(self, analysis: Analysis) -> None:
        self.unused = set(analysis.unused)
        self.pins = analysis.couplings.pins
        self.first = np.full(int(analysis.component.max()) + 1, -1)
        for i in reversed(range(len(self.pins))):
            self.first[analysis.component[self.pins[i].labels]] = i

    def of(self, channels: np.ndarray, parts: Sequence[Member]) -> tuple[str, ...]:
        """Reasons in words, at most three."""
        texts: dict[str, None] = {}
        for i in np.unique(self.first[channels]):
            if i >= 0:
                texts[_told(self.pins[i])] = None
        if any(m.parameter in self.unused for m in parts):
            texts["no forward pass reads it"] = None
        return tuple(texts)[:3] or ("tied to a fixed dimension",)


def _told(pin: Pin) -> str:
    return pin.why if pin.op is None else f"{pin.why}, {pin.op.name} at {pin.op.where}"
