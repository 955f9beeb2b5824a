"""Make the user's own code follow a cut: run it, see where it parts from the graph, repair integers there.

First every integer attribute that can only mean one thing is set. Where the code still parts from the graph, the
attributes of the modules around that place are tried one by one, each in all instances of its class; what brings the
run further stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from compress.graph.analyse import Analysis
from compress.graph.rewrite import Sizes, new_constants
from compress.graph.rules.table import arguments
from compress.graph.trace import Op, Ref, Trace, attempt
from compress.surgery.attributes import Facts, facts, options, own_attributes, stays, subtree

RUNS = 80


@dataclass(frozen=True, slots=True)
class Progress:
    """How many operators the cut module ran as expected; then what differs, in which module (None: nothing differs)."""

    matched: int
    problem: str | None
    path: str = ""


@dataclass(slots=True)
class Follower:
    """The cut module under repair; `changed` maps (path, attribute) to what it was."""

    module: nn.Module
    example: tuple[Any, ...]
    analysis: Analysis
    sizes: Sizes
    expected: list[Op]
    runs: int = 0
    changed: dict[tuple[str, str], Any] = field(default_factory=dict)

    def run(self) -> Progress:
        """Run the module as far as it goes and compare with what the graph expects."""
        self.runs += 1
        after, error = attempt(self.module, self.example, meta=self.analysis.traces[0].on_meta)
        return _compared(self.expected, self.sizes, after, error)

    def set(self, path: str, inner: nn.Module, key: str, new: Any) -> None:
        """Change an attribute and remember what it was."""
        before = getattr(inner, key)
        self.changed.setdefault((path, key), before)
        if self.changed[path, key] == new:
            del self.changed[path, key]
        setattr(inner, key, new)


def follow(
    module: nn.Module, example: tuple[Any, ...], analysis: Analysis, sizes: Sizes
) -> tuple[dict[str, tuple[Any, Any]], str | None]:
    """Repair the cut `module` in place; return path.attribute -> (old, new), and what still differs."""
    follower = Follower(module, example, analysis, sizes, [op for op in analysis.traces[0].ops if _counts(op)])
    best = follower.run()
    if best.problem is not None:
        known = facts(analysis, sizes)
        _repair_certain(follower, known)
        best = follower.run()
        while best.problem is not None and follower.runs < RUNS:
            further = _one_step(follower, known, best)
            if further is None:
                break
            best = further
    told = {
        f"{path}.{key}" if path else key: (old, _get(module, path, key))
        for (path, key), old in follower.changed.items()
    }
    return told, best.problem


def _get(module: nn.Module, path: str, key: str) -> Any:
    return getattr(module.get_submodule(path), key)


def _repair_certain(follower: Follower, known: Facts) -> None:
    """Set what can only mean one thing: a number that became one other number, everywhere in that module."""
    for path, inner, key, old in own_attributes(follower.module):
        for table in (known.get(path, {}), subtree(known, path)):
            found = options(old, table)
            if len(found) == 1 and not stays(old, table):
                follower.set(path, inner, key, found[0])
                break


def _one_step(follower: Follower, known: Facts, best: Progress) -> Progress | None:
    """Find one repair that brings the run further, and keep it; None where none does."""
    for kind, key, choice in list(_candidates(follower, known, best.path)):
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


def _candidates(follower: Follower, known: Facts, path: str) -> Iterator[tuple[type, str, int]]:
    """Class, attribute and option, for the modules around `path`, the innermost first; -1 is the original value."""
    seen = set()
    while True:
        for at, inner, key, now in own_attributes(follower.module):
            if at != path:
                continue
            old = follower.changed.get((at, key), now)
            for choice in (*range(len(_options(known, at, old))), -1):
                case = (type(inner), key, choice)
                if case not in seen:
                    seen.add(case)
                    yield case
        if not path:
            return
        path = path.rpartition(".")[0]


def _options(known: Facts, path: str, old: Any) -> list[Any]:
    own = options(old, known.get(path, {}))
    return own + [new for new in options(old, subtree(known, path)) if new not in own]


def _apply(follower: Follower, known: Facts, kind: type, key: str, choice: int) -> list[tuple[str, nn.Module, Any]]:
    """Set the attribute in all instances of the class; return what to set back."""
    undo = []
    for path, inner, name, now in own_attributes(follower.module):
        if type(inner) is not kind or name != key:
            continue
        old = follower.changed.get((path, key), now)
        found = _options(known, path, old)
        if choice >= len(found):
            continue
        new = old if choice < 0 else found[choice]
        if new != now:
            undo.append((path, inner, now))
            follower.set(path, inner, key, new)
    return undo


def _compared(expected: list[Op], sizes: Sizes, after: Trace, error: str | None) -> Progress:
    got = [op for op in after.ops if _counts(op)]
    for i, (want, have) in enumerate(zip(expected, got, strict=False)):
        if want.name != have.name:
            return Progress(i, f"runs {have.name} where the original ran {want.name}, in {want.where}", want.path)
        for a, b in zip(want.outs, have.outs, strict=False):
            if sizes.after(a) != after.shapes[b]:
                what = f"{want.name} gives {after.shapes[b]} instead of {sizes.after(a)}, in {want.where}"
                return Progress(i, what, want.path)
        wanted, given = _numbers(want, sizes), _numbers(have, None)
        if wanted != given:
            return Progress(i, f"{want.name} is given {given} instead of {wanted}, in {want.where}", want.path)
    reached = min(len(expected), len(got))
    stopped = expected[reached].path if reached < len(expected) else ""
    if error is not None:
        return Progress(reached, f"{error}, in {stopped or 'the network itself'}", stopped)
    if len(expected) != len(got):
        return Progress(reached, f"runs {len(got)} operators, the original {len(expected)}", stopped)
    return Progress(reached, None)


def _numbers(op: Op, sizes: Sizes | None) -> dict[str, Any]:
    """The operator's plain numbers (after the cut where `sizes` is given) that its result's shape does not show."""
    bound = arguments(op)
    if sizes is not None:
        ins = {key: item.value for key, item in bound.items() if isinstance(item, Ref)}
        bound |= new_constants(op.name, bound, ins, op.outs, sizes)
    return {key: item for key, item in bound.items() if key not in _SHOWN and isinstance(item, (int, float))}


_SHOWN = ("start", "end", "length", "split_size", "N", "HxW")


def _counts(op: Op) -> bool:
    """Views without effect come and go with strides; everything else must match."""
    return op.name not in (
        "aten.view", "aten._unsafe_view", "aten.clone", "aten.expand", "aten.alias", "aten.detach",
        "aten._reshape_alias",
        "aten.empty", "aten.as_strided", "aten.as_strided_", "aten._to_copy", "aten.empty_strided", "aten.slice",
    )  # fmt: skip
