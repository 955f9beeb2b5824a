"""Make the user's own code follow a cut: run it, see where it parts from the graph, repair integers there.

First every integer attribute that can only mean one thing is set. Where the code still parts from the graph, the
attributes of the modules around that place are tried one by one, each in all instances of its class; what brings the
run further stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from compress.core.collector import uncollected
from compress.graph.analyse import Analysis
from compress.graph.couplings import operands
from compress.graph.positions import CHOOSING, renumbered
from compress.graph.rewrite import Sizes, new_constants
from compress.graph.rules.table import arguments
from compress.graph.trace import Op, Ref, Trace, attempt
from compress.surgery.attributes import Facts, certain, facts, folded, options, own_attributes, subtrees

RUNS = 60
LONG = 8  # entries: longer lists are tables, not sizes


@dataclass(frozen=True, slots=True)
class Progress:
    """How many operators the cut module ran as expected, and what differs then, at which of the original's operators.

    `problem` is None where nothing differs. `through` tells that the module ran to its end and gave the right shapes,
    `numbers` that the operator is the right one but was given other numbers; `last` is the last operator that matched.
    """

    matched: int
    problem: str | None
    op: Op | None = None
    through: bool = False
    numbers: bool = False
    last: Op | None = None

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


@dataclass(frozen=True, slots=True)
class Known:
    """What numbers became: `own[path]` those that a module saw itself, `wide[path]` also those seen inside it."""

    own: Facts
    wide: Facts

    @staticmethod
    def of(found: Facts) -> Known:
        """Gather what every module saw inside it."""
        return Known(found, subtrees(found))


@dataclass(slots=True)
class Follower:
    """The cut module under repair; `changed` maps (path, attribute) to what it was."""

    module: nn.Module
    example: tuple[Any, ...]
    analysis: Analysis
    sizes: Sizes
    expected: list[Op]
    settled_by_data: int
    runs: int = 0
    changed: dict[tuple[str, str], Any] = field(default_factory=dict)

    def run(self) -> Progress:
        """Run the module as far as it goes and compare with what the graph expects."""
        self.runs += 1
        with uncollected():
            after, error = attempt(self.module, self.example, meta=self.analysis.traces[0].on_meta)
        outputs = [self.sizes.after(value) for value in self.analysis.traces[0].outputs]
        through = error is None and outputs == [after.shapes[value] for value in after.outputs]
        found = _compared(self.expected, self.analysis, self.sizes, after, error)
        if error is None and found.matched >= self.settled_by_data:
            through = True
        last = self.expected[found.matched - 1] if found.matched else None
        return replace(found, through=through, last=last)

    def options(self, known: Known, path: str, old: Any) -> list[Any]:
        """What an attribute of the module at `path` may have become, the likeliest first."""
        inputs = self.analysis.traces[0].inputs
        shape = self.analysis.traces[0].shapes[inputs[0]] if inputs else ()
        own, wide = known.own.get(path, {}), known.wide.get(path, {})
        found: list[Any] = []
        for table in (own, folded(own, shape[0] if shape else 1), wide):
            found += [new for new in options(old, table) if new not in found]
        return found

    def state(self) -> dict[tuple[str, str], Any]:
        """Every changed attribute's value now."""
        return {(path, key): _get(self.module, path, key) for path, key in self.changed}

    def restore(self, state: Mapping[tuple[str, str], Any]) -> None:
        """Set the attributes back to what they were at that state."""
        for path, key in {**self.changed, **state}:
            old = self.changed.get((path, key))
            self.set(path, self.module.get_submodule(path), key, state.get((path, key), old))

    def set(self, path: str, inner: nn.Module, key: str, new: Any) -> None:
        """Change an attribute and remember what it was."""
        before = getattr(inner, key)
        self.changed.setdefault((path, key), before)
        if self.changed[path, key] == new:
            del self.changed[path, key]
        setattr(inner, key, new)


def follow(
    module: nn.Module,
    example: tuple[Any, ...],
    analysis: Analysis,
    sizes: Sizes,
    check: Callable[[nn.Module], bool] | None = None,
) -> tuple[dict[str, tuple[Any, Any]], Progress]:
    """Repair the cut `module` in place; return path.attribute -> (old, new), and how far it then follows.

    Operators may come in another form after a cut (a dimension of size 1 is squeezed): where the module runs through,
    `check` is asked whether it computes the right thing.
    """
    expected = [op for op in analysis.traces[0].ops if _counts(op, sizes)]
    follower = Follower(module, example, analysis, sizes, expected, _settled_by_data(expected))

    def settled(progress: Progress) -> bool:
        return progress.problem is None or (progress.through and check is not None and check(module))

    best = follower.run()
    if best.problem is not None:
        known = Known.of(facts(analysis, sizes))
        _repair_certain(follower, known)
        start = best = follower.run()
        before = follower.state()
        while best.problem is not None and follower.runs < RUNS:
            further = _one_step(follower, known, best)
            if further is None:
                break
            best = further
        if settled(best):
            best = replace(best, problem=None)
        elif best is not start and start.through:
            after = follower.state()
            follower.restore(before)
            if settled(start):
                best = replace(start, problem=None)
            else:
                follower.restore(after)
    told = {
        f"{path}.{key}" if path else key: (old, _get(module, path, key))
        for (path, key), old in follower.changed.items()
    }
    return told, best


def _get(module: nn.Module, path: str, key: str) -> Any:
    return getattr(module.get_submodule(path), key)


def _repair_certain(follower: Follower, known: Known) -> None:
    """Set what can only mean one thing: a number that became one other number, everywhere in that module.

    Not a number that is also an extent of the network's inputs (the size of images, say), nor a long list.
    """
    trace = follower.analysis.traces[0]
    given = {n for value in trace.inputs for n in trace.shapes[value]}
    for path, inner, key, old in own_attributes(follower.module):
        entries = old if isinstance(old, (tuple, list)) else (old,)
        if len(entries) > LONG or any(isinstance(n, int) and n in given - {0, 1} for n in entries):
            continue
        for table in (known.own.get(path, {}), known.wide.get(path, {})):
            new = certain(old, table)
            if new is not None and new != old:
                follower.set(path, inner, key, new)
                break


def _one_step(follower: Follower, known: Known, best: Progress) -> Progress | None:
    """Find one repair that brings the run further, and keep it; None where none does."""
    for kind, key, choice in list(_candidates(follower, known, best.paths)):
        if follower.runs >= RUNS:
            return None
        undo = _apply(follower, known, kind, key, choice)
        if not undo:
            continue
        trial = follower.run()
        if trial.problem is None or trial.matched > best.matched:
            return trial
        for path, inner, old in reversed(undo):
            follower.set(path, inner, key, old)
    return None


def _candidates(follower: Follower, known: Known, paths: list[str]) -> Iterator[tuple[type, str, int]]:
    """Class, attribute and option, for the modules at `paths`; -1 is the original value."""
    at: dict[str, list[tuple[nn.Module, str, Any]]] = {}
    for path, inner, key, now in own_attributes(follower.module):
        at.setdefault(path, []).append((inner, key, follower.changed.get((path, key), now)))
    seen = set()
    for path in paths:
        for inner, key, old in at.get(path, []):
            for choice in (*range(len(follower.options(known, path, old))), -1):
                case = (type(inner), key, choice)
                if case not in seen:
                    seen.add(case)
                    yield case


def _apply(follower: Follower, known: Known, kind: type, key: str, choice: int) -> list[tuple[str, nn.Module, Any]]:
    """Set the attribute in all instances of the class; return what to set back."""
    undo = []
    for path, inner, name, now in own_attributes(follower.module):
        if type(inner) is not kind or name != key:
            continue
        old = follower.changed.get((path, key), now)
        found = follower.options(known, path, old)
        if choice >= len(found):
            continue
        new = old if choice < 0 else found[choice]
        if new != now:
            undo.append((path, inner, now))
            follower.set(path, inner, key, new)
    return undo


def _settled_by_data(expected: list[Op]) -> int:
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


def _compared(expected: list[Op], analysis: Analysis, sizes: Sizes, after: Trace, error: str | None) -> Progress:
    now = Sizes(after.shapes, {}, sizes.dead)
    got = [op for op in after.ops if _counts(op, now)]
    for i, (want, have) in enumerate(zip(expected, got, strict=False)):
        if want.name != have.name:
            return Progress(i, f"runs {have.name} where the original ran {want.name}, in {want.where}", want)
        for a, b in zip(want.outs, have.outs, strict=False):
            if sizes.after(a) != after.shapes[b] and not _alike(want, sizes.after(a), after.shapes[b]):
                what = f"{want.name} gives {after.shapes[b]} instead of {sizes.after(a)}, in {want.where}"
                return Progress(i, what, want)
        if not _same_choice(want, have, analysis, sizes, after):
            return Progress(i, f"{want.name} is given other positions, in {want.where}", want)
        wanted, given = _numbers(want, sizes), _numbers(have, now)
        if wanted != given:
            what = f"{want.name} is given {given} instead of {wanted}, in {want.where}"
            return Progress(i, what, want, numbers=True)
    reached = min(len(expected), len(got))
    stopped = expected[reached] if reached < len(expected) else None
    if error is not None:
        return Progress(reached, error + (f", in {stopped.where}" if stopped else ""), stopped)
    if len(expected) != len(got):
        return Progress(reached, f"runs {len(got)} operators, the original {len(expected)}", stopped)
    return Progress(reached, None)


def _alike(op: Op, one: tuple[int, ...], two: tuple[int, ...]) -> bool:
    """Whether a permutation gives the same but for dimensions of size 1, which an einsum puts where it likes."""
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


def _range(bound: dict[str, Any], sizes: Sizes) -> range | None:
    """Indices that a slice takes after the cut; None where it takes all."""
    size = sizes.after(bound["self"].value)[bound["dim"]]
    taken = range(size)[slice(bound["start"], bound["end"], bound["step"])]
    return None if taken == range(size) else taken


_SHOWN = ("length", "split_size", "N", "HxW")


def _counts(op: Op, sizes: Sizes) -> bool:
    """Views without effect come and go with strides; everything else must match."""
    if op.name == "aten.slice":
        return _range(_after(op, sizes), sizes) is not None
    return op.name not in (
        "aten.view", "aten._unsafe_view", "aten.clone", "aten.expand", "aten.alias", "aten.detach",
        "aten._reshape_alias",
        "aten.empty", "aten.as_strided", "aten.as_strided_", "aten._to_copy", "aten.empty_strided",
    )  # fmt: skip
