"""How far a run of a cut module agrees with the graph: same operators, shapes and numbers, one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from compress.graph.analyse import Analysis
from compress.graph.couplings import operands
from compress.graph.positions import CHOOSING, renumbered
from compress.graph.rewrite import Sizes, new_constants
from compress.graph.rules.table import arguments
from compress.graph.trace import Op, Ref, Trace


@dataclass(frozen=True, slots=True)
class Progress:
    """How many operators the cut module ran as expected, and what differs then, at which of the original's operators.

    `problem` is None where nothing differs. `through` tells that the module ran to its end and gave the right shapes,
    `numbers` that the operator is the right one but was given other numbers, `dims` along which its result has another
    size; `last` is the last operator that matched.
    """

    matched: int
    problem: str | None
    op: Op | None = None
    through: bool = False
    numbers: bool = False
    last: Op | None = None
    dims: tuple[int, ...] = ()

    @property
    def paths(self) -> list[str]:
        """The modules around the place where the runs part, the innermost first."""
        found = {""}
        for op in (self.last, self.op):
            path = "" if op is None else op.path
            while path:
                found.add(path)
                path = path.rpartition(".")[0]
        return sorted(found, key=lambda path: (-len(path.split(".")) if path else 0, path))


def settled_by_data(expected: list[Op]) -> int:
    """Where shapes begin to depend on values, so that nothing after it can be compared by shape."""
    tag = torch.Tag.dynamic_output_shape
    outside = (i for i, op in enumerate(expected) if tag in op.func.tags and op.name != "aten.index")
    by_mask = (i for i, op in enumerate(expected) if op.name == "torchvision.nms")
    return min([*outside, *by_mask], default=len(expected) + 1)


def _same_choice(want: Op, have: Op, analysis: Analysis, sizes: Sizes, after: Trace) -> bool:
    """Whether channels chosen by known positions are chosen by the right ones."""
    if want.name not in CHOOSING:
        return True
    before = analysis.traces[0].constants.get(operands(want)[1])
    found = None if before is None else analysis.couplings.chosen.get(id(before))
    if found is None:
        return True
    given = after.constants.get(operands(have)[1])
    return given is not None and torch.equal(given, renumbered(*found, sizes.dead))


@dataclass(frozen=True, slots=True)
class Run:
    """A trace at the sizes after a cut: the operators that count, and value -> what it is a view or a copy of."""

    trace: Trace
    sizes: Sizes
    ops: list[Op]
    sources: dict[int, int]

    @staticmethod
    def of(trace: Trace, sizes: Sizes) -> Run:
        """Leave out what comes and goes with strides."""
        ops: list[Op] = []
        sources: dict[int, int] = {}
        for op in trace.ops:
            if counts(op, sizes):
                ops.append(op)
            elif read := operands(op):
                sources.update((out, sources.get(read[0], read[0])) for out in op.outs if out != read[0])
        return Run(trace, sizes, ops, sources)


class _Wires:
    """Which value of the cut network stands for which of the original's; a view stands for what it is a view of."""

    def __init__(self, wanted: Run, got: Run) -> None:
        self.wanted, self.got = wanted.sources, got.sources
        known = got.trace.parameters
        self.other = dict(zip(wanted.trace.inputs, got.trace.inputs, strict=False))
        self.other |= {v: known[name] for name, v in wanted.trace.parameters.items() if name in known}

    def same(self, want: Op, have: Op) -> bool:
        """Whether both read the same values. What nothing made (a constant) is known from its first reader on."""
        alike = True
        for one, two in zip(operands(want), operands(have), strict=False):
            one, two = self.wanted.get(one, one), self.got.get(two, two)  # noqa: PLW2901 - what they are views of
            alike = self.other.setdefault(one, two) == two and alike
        self.other.update(zip(want.outs, have.outs, strict=False))
        return alike


def compared(wanted: Run, analysis: Analysis, got: Run, error: str | None) -> Progress:
    """Compare what ran (`got`, ended by `error`) with the original's run at the new sizes (`wanted`).

    An operator that reads another value than the original's is told only where nothing else differs: what follows it
    may agree all the same, and a repair that brings the run further is one.
    """
    expected, sizes, after, now = wanted.ops, wanted.sizes, got.trace, got.sizes
    wires, crossed = _Wires(wanted, got), None
    for i, (want, have) in enumerate(zip(expected, got.ops, strict=False)):
        if want.name != have.name:
            return Progress(i, f"runs {have.name} where the original ran {want.name}, in {want.where}", want)
        for a, b in zip(want.outs, have.outs, strict=False):
            one, two = sizes.after(a), after.shapes[b]
            if one != two and not _alike(want, one, two):
                differ = tuple(d for d, (m, n) in enumerate(zip(one, two, strict=False)) if m != n)
                return Progress(i, f"{want.name} gives {two} instead of {one}, in {want.where}", want, dims=differ)
        if not wires.same(want, have) and crossed is None:
            crossed = want
        if not _same_choice(want, have, analysis, sizes, after):
            return Progress(i, f"{want.name} is given other positions, in {want.where}", want)
        asked = _numbers(want, sizes) | _held(want, wanted.trace)
        given = _numbers(have, now) | _held(have, after)
        if asked != given:
            what = f"{want.name} is given {given} instead of {asked}, in {want.where}"
            return Progress(i, what, want, numbers=True)
    reached = min(len(expected), len(got.ops))
    stopped = expected[reached] if reached < len(expected) else None
    if error is not None:
        return Progress(reached, error + (f", in {stopped.where}" if stopped else ""), stopped)
    if len(expected) != len(got.ops):
        return Progress(reached, f"runs {len(got.ops)} operators, the original {len(expected)}", stopped)
    if crossed is not None:
        return Progress(reached, f"{crossed.name} reads another value than the original's, in {crossed.where}", crossed)
    return Progress(reached, None)


def _alike(op: Op, one: tuple[int, ...], two: tuple[int, ...]) -> bool:
    """Whether the difference means nothing.

    A tensor without elements has no channels, and an einsum permutes dimensions of size 1 as it likes.
    """
    if 0 in one and 0 in two:
        return True
    return op.name == "aten.permute" and [n for n in one if n != 1] == [n for n in two if n != 1]


def _after(op: Op, sizes: Sizes) -> dict[str, Any]:
    """The operator's arguments by name, after the cut."""
    bound = arguments(op)
    ins = {key: item.value for key, item in bound.items() if isinstance(item, Ref)}
    return bound | new_constants(op.name, bound, ins, op.outs, sizes)


def _numbers(op: Op, sizes: Sizes) -> dict[str, Any]:
    """The operator's plain numbers after the cut that its result's shape does not show."""
    bound = _after(op, sizes)
    if op.name == "aten.slice":
        return {"range": _range(bound, sizes)}
    return {key: item for key, item in bound.items() if key not in _SHOWN and isinstance(item, (int, float))}


def _held(op: Op, trace: Trace) -> dict[str, Any]:
    """The numbers that the operator reads as tensors which nothing made (`torch.tensor(width)`), by their places."""
    given = trace.parameters.values()
    held = [(i, trace.constants[v]) for i, v in enumerate(operands(op)) if v in trace.constants and v not in given]
    return {f"tensor {i}": t.item() for i, t in held if t.dim() == 0}


def _range(bound: dict[str, Any], sizes: Sizes) -> range | None:
    """Indices that a slice takes after the cut; None where it takes all."""
    size = sizes.after(bound["self"].value)[bound["dim"]]
    taken = range(size)[slice(bound["start"], bound["end"], bound["step"])]
    return None if taken == range(size) else taken


_SHOWN = ("length", "split_size", "N", "HxW")


def counts(op: Op, sizes: Sizes) -> bool:
    """Views without effect come and go with strides; everything else must match."""
    if op.name == "aten.slice":
        return _range(_after(op, sizes), sizes) is not None
    return op.name not in (
        "aten.view", "aten._unsafe_view", "aten.clone", "aten.expand", "aten.alias", "aten.detach",
        "aten._reshape_alias",
        "aten.empty", "aten.as_strided", "aten.as_strided_", "aten._to_copy", "aten.empty_strided",
    )  # fmt: skip
