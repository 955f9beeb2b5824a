"""Trace -> groups: run the rules over the trace, find what leaves together, and what can leave at all."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

from compress.core.choosing import Attention
from compress.core.members import Slots
from compress.core.types import Group
from compress.graph.couplings import Couplings, Layout, at_first, label_parameters, operands, varies
from compress.graph.groups import find_groups
from compress.graph.modules import attributes_of, state_of, walk
from compress.graph.positions import pin_other_readers, pin_read_numbers
from compress.graph.recurrent import tie_states
from compress.graph.rules.elementwise import pointwise
from compress.graph.rules.table import rule_of
from compress.graph.trace import Op, Trace, trace

ParameterLabels = Mapping[str, tuple[np.ndarray | None, ...]]


@dataclass(frozen=True)
class Analysis:
    """What the graph stage knows about a network.

    `tensors` are the network's own parameters and buffers, `parameters` holds the labels of every parameter and
    buffer, an array a dimension (None: size 1). `component[label]` is the channel a label belongs to; component of
    label 0 is fixed. `couplings` and `traces` are one a pass (evaluation first, then training where some parameters
    are used only there). `unknown` names operators without a rule.
    """

    attention: Attention
    tensors: Mapping[str, Tensor]
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
        return find_groups(self)

    @cached_property
    def slots(self) -> Slots:
        """All dimensions of parameters that have labels, in the order of these."""
        found = [(n, d, labels) for n, dims in self.parameters.items() for d, labels in enumerate(dims)]
        every = [(n, d, labels.item(0), labels.size) for n, d, labels in found if labels is not None]
        starts = np.array([start for _, _, start, _ in every], dtype=np.int64)
        sizes = np.array([size for *_, size in every], dtype=np.int64)
        return Slots(tuple((n, d) for n, d, *_ in every), starts, starts + sizes)

    @cached_property
    def channels(self) -> int:
        """Number of components, the fixed one included."""
        return int(self.component.max()) + 1

    @property
    def prunable(self) -> tuple[Group, ...]:
        """The groups whose channels may leave."""
        return tuple(g for g in self.groups if g.prunable)


def apply_rule(couplings: Couplings, op: Op) -> bool:
    """Let the operator's rule run; False where there is none and what it touches was pinned."""
    couplings.op = op
    values = operands(op)
    for out in op.outs:
        couplings.makers.setdefault(out, op)
    if values and all(v in couplings.const for v in values):
        couplings.const.update(op.outs)
    elif couplings.const.intersection(op.outs):
        couplings.written(op.outs)
    found = rule_of(op.name)
    if found is not None:
        found(couplings, op)
        return True
    if _is_pointwise(op):
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


_POINTWISE: dict[str, bool] = {}


def _is_pointwise(op: Op) -> bool:
    """Whether PyTorch tags the operator, or what it does in place, as one that works on each element by itself."""
    found = _POINTWISE.get(op.name)
    if found is None:
        plain = getattr(torch.ops.aten, op.name.removeprefix("aten.").removesuffix("_"), None)
        forms = [op.func, *(getattr(plain, form) for form in (plain.overloads() if plain else ()))]
        found = _POINTWISE[op.name] = any(torch.Tag.pointwise in form.tags for form in forms)
    return found


def analyse(module: nn.Module, example: tuple[Any, ...], *, attention: Attention = Attention.HEADS) -> Analysis:
    """Find the channels of `module`, which is left untouched. Raises TraceError where it does not run."""
    traces = [trace(module, example)]
    parts = walk(module)
    state = state_of(parts)
    unused = [n for n, t in state.items() if isinstance(t, nn.Parameter) and n not in traces[0].parameters]
    if unused:  # auxiliary heads run in training only, and read channels too
        with contextlib.suppress(Exception):  # what cannot be run cannot be coupled: it stays, and is reported
            traces.append(trace(module, example, train=True))
    read = {name for recorded in traces for name in recorded.parameters}
    tensors = state | {n: t for n, t in attributes_of(parts, state).items() if n in read}
    return _analyse(module, tensors, traces, attention)


def _analyse(
    module: nn.Module, tensors: Mapping[str, Tensor], traces: Sequence[Trace], attention: Attention
) -> Analysis:
    couplings = Couplings(attention, [])
    labels: dict[str, tuple[np.ndarray | None, ...]] = {}
    for name, tensor in tensors.items():
        labels[name] = tuple(couplings.fresh(size) if size > 1 else None for size in tensor.shape)
    couplings.parameter_labels = couplings.count
    tie_states(couplings, module, labels)
    unknown: dict[str, str] = {}
    used: set[str] = set()
    layouts: list[Mapping[int, Layout]] = []
    for number, recorded in enumerate(traces):
        couplings.training = number > 0  # the first is of evaluation
        couplings.shapes, couplings.constants = recorded.shapes, recorded.constants
        couplings.layouts, couplings.const = {}, set()
        couplings.makers, couplings.looked_at, couplings.numbers = {}, set(), {}
        used.update(recorded.parameters)
        label_parameters(couplings, recorded, labels)
        for op in recorded.ops:
            if not apply_rule(couplings, op):
                unknown.setdefault(op.name, op.where)
        pin_other_readers(couplings, recorded.ops)
        pin_read_numbers(couplings, recorded)
        makers = {out: op for op in recorded.ops for out in op.outs}
        for out in recorded.outputs:
            couplings.op = makers.get(out)
            couplings.fix_all(out, "output of the network")
        couplings.op = None
        layouts.append(couplings.layouts)
    component = settle(couplings)
    unused = tuple(name for name in tensors if name not in used and tensors[name].dim() > 0)
    shapes = {name: tuple(t.shape) for name, t in tensors.items()}
    return Analysis(
        attention, tensors, labels, shapes, component, tuple(traces), tuple(layouts), couplings, unknown, unused
    )


def settle(c: Couplings) -> np.ndarray:
    """Connect what is tied; where a split channel block would not stay rectangular, tie until it does."""
    component = _components(c)
    pending = {array.tobytes(): array for array in c.splits}
    while pending:
        tied = False
        for key, array in list(pending.items()):
            now = component[array]
            varying = [a for a in range(array.ndim) if varies(now, a)]
            if len(varying) <= 1:
                del pending[key]
                continue
            carry = max(varying, key=lambda a: array.shape[a])
            for axis in varying:
                if axis != carry:
                    first = array[at_first(axis)]
                    c.ties.append((np.broadcast_to(first, array.shape).ravel(), array.ravel()))
            tied = True
        if not tied:
            break
        component = _components(c)
    return component


def _components(c: Couplings) -> np.ndarray:
    """Number of the connected component of every label, in the order of their first labels."""
    component, rest = _by_runs(c)
    if rest:
        rows, cols = (component[np.concatenate(side)] for side in zip(*rest, strict=True))
        first = _united(rows, cols, int(component.max()) + 1)
        component = (np.cumsum(first == np.arange(len(first))) - 1)[first][component]
    return component


Tie = tuple[np.ndarray, np.ndarray]


def _by_runs(c: Couplings) -> tuple[np.ndarray, list[Tie]]:
    """Number of the component of every label, as far as these ties connect it, and the ties that this leaves out.

    Most ties are between whole runs of labels: those are united run by run. A run that is tied to older labels in
    some order (of a concatenation, say) takes their places.
    """
    number = {key: i for i, key in enumerate(c.runs)}
    runs = list(c.runs.values())
    parent = list(range(len(runs)))  # of a run: one that starts before it, or itself

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    half: list[tuple[int, np.ndarray]] = []
    rest: list[Tie] = []
    for one, two in c.ties:
        i, j = number.get(id(one)), number.get(id(two))
        if i is not None and j is not None:
            i, j = root(i), root(j)
            parent[max(i, j)] = min(i, j)
        elif i is not None:
            half.append((i, two))
        elif j is not None:
            half.append((j, one))
        else:
            rest.append((one, two))
    holders: dict[int, int] = {}
    for run, labels in half:  # what is tied to the same labels is tied
        i, j = root(run), root(holders.setdefault(id(labels), run))
        parent[max(i, j)] = min(i, j)
    places: dict[int, np.ndarray] = {}
    for i, labels in half:
        at = root(i)
        if places.get(at) is labels:
            continue
        if at not in places and labels.max() < runs[at].item(0):
            places[at] = labels
        else:
            rest.append((runs[at], labels))
    component = np.zeros(c.count, dtype=np.int64)
    spans = [slice(start := run.item(0), start + run.size) for run in runs]
    found = 1
    for i, span in enumerate(spans):  # what a run is tied to is older than it, and has its numbers already
        if parent[i] != i:
            component[span] = component[spans[root(i)]]
        elif i in places:
            component[span] = component[places[i]]
        else:
            component[span] = np.arange(found, found := found + runs[i].size)
    return component, rest


def _united(rows: np.ndarray, cols: np.ndarray, count: int) -> np.ndarray:
    """For every one of `count` nodes the smallest that ties from `rows` to `cols` connect it to."""
    apart = rows != cols
    rows, cols = rows[apart], cols[apart]
    touched = np.zeros(count, dtype=bool)
    touched[rows] = touched[cols] = True
    nodes = np.flatnonzero(touched)
    place = np.cumsum(touched) - 1
    graph = coo_array((np.ones(len(rows), dtype=np.int8), (place[rows], place[cols])), shape=(len(nodes), len(nodes)))
    parts = connected_components(graph, directed=False)[1]
    lowest = np.full(len(nodes), count)
    np.minimum.at(lowest, parts, nodes)
    found = np.arange(count)
    found[nodes] = lowest[parts]
    return found
