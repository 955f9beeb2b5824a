"""Make the user's own code follow a cut: run it, see where it parts from the graph, repair integers there.

First every integer attribute that can only mean one thing, by its value and its name, is set. Where the code still
parts from the graph, the attributes of the modules around that place are tried one by one, each in all instances of its
class; what brings the run further stays. In the end, what was set on doubtful evidence and is not needed is set back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn
from torch.utils import _pytree as pytree

from compress.core.collector import uncollected
from compress.graph.analyse import Analysis
from compress.graph.modules import walk
from compress.graph.rewrite import Sizes
from compress.graph.trace import Op, attempt
from compress.surgery.agreement import Progress, Run, compared, settled_by_data
from compress.surgery.attributes import Facts, certain, facts, folded, options, own_attributes, subtrees

RUNS = 60
LONG = 8  # entries: longer lists are tables, not sizes


@dataclass(frozen=True, slots=True)
class Known:
    """What numbers became: `own[path]` those that a module saw itself, `wide[path]` also those seen inside it.

    A module is `lent` where it runs no operator: another may call its methods (`self.table.biases()`), so that what the
    nearest module around it saw is its own.
    """

    own: Facts
    wide: Facts
    lent: frozenset[str]

    @staticmethod
    def of(found: Facts, module: nn.Module) -> Known:
        """Gather what every module saw inside it."""
        own, lent = dict(found), set()
        for path, _ in walk(module):  # those around come first
            if path and path not in found:
                lent.add(path)
                own[path] = own.get(path.rpartition(".")[0], {})
        return Known(own, subtrees(found), frozenset(lent))

    def around(self, paths: list[str]) -> list[str]:
        """`paths`, and behind them what these modules may call the methods of, the nearest first."""
        inside = [path for path in self.lent if path.rpartition(".")[0] in paths]
        return [*paths, *sorted(inside, key=lambda path: (-path.count("."), path))]


@dataclass(slots=True)
class Follower:
    """The cut module under repair; `changed` maps (path, attribute) to what it was, `ops` is what ran last."""

    module: nn.Module
    example: tuple[Any, ...]
    analysis: Analysis
    sizes: Sizes
    wanted: Run
    settled_by_data: int
    runs: int = 0
    changed: dict[tuple[str, str], Any] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)

    def run(self) -> Progress:
        """Run the module as far as it goes and compare with what the graph expects."""
        self.runs += 1
        with uncollected():
            after, error = attempt(self.module, self.example, meta=self.analysis.traces[0].on_meta)
        self.ops = after.ops
        outputs = [self.sizes.after(value) for value in self.analysis.traces[0].outputs]
        through = error is None and outputs == [after.shapes[value] for value in after.outputs]
        now = Run.of(after, Sizes(after.shapes, {}, self.sizes.dead))
        found = compared(self.wanted, self.analysis, now, error)
        if error is None and found.matched >= self.settled_by_data:
            through = True
        last = self.wanted.ops[found.matched - 1] if found.matched else None
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
    `check` is asked whether it computes the right thing. Not where an operator is given other numbers, unless these may
    come from values: a softmax whose scores are far apart shows nothing of its scale.
    """
    wanted = Run.of(analysis.traces[0], sizes)
    follower = Follower(module, example, analysis, sizes, wanted, settled_by_data(wanted.ops))

    def settled(progress: Progress) -> bool:
        if progress.problem is None or check is None:
            return progress.problem is None
        return progress.through and not (progress.numbers and analysis.traces[0].on_meta) and check(module)

    best = follower.run()
    if best.problem is not None:
        known = Known.of(facts(analysis, sizes), module)
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
        if best.problem is None:
            _undo_unneeded(follower, known, check)
    told = {
        f"{path}.{key}" if path else key: (old, _get(module, path, key))
        for (path, key), old in follower.changed.items()
    }
    return told, best


def _get(module: nn.Module, path: str, key: str) -> Any:
    return getattr(module.get_submodule(path), key)


def _repair_certain(follower: Follower, known: Known) -> None:
    """Set what can only mean one thing: a number that became one other number, everywhere in that module.

    Not a number that is also an extent of the network's inputs (the size of images, say), nor a long list, nor what
    only the module around it saw.
    """
    trace = follower.analysis.traces[0]
    given = {n for value in trace.inputs for n in trace.shapes[value]}
    for path, inner, key, old in own_attributes(follower.module):
        entries = pytree.tree_leaves(old)
        if len(entries) > LONG or any(isinstance(n, int) and n in given - {0, 1} for n in entries):
            continue
        seen = {} if path in known.lent else known.own.get(path, {})
        for table in (seen, known.wide.get(path, {})):
            new = certain(key, old, table)
            if new is not None and new != old:
                follower.set(path, inner, key, new)
                break


def _undo_unneeded(follower: Follower, known: Known, check: Callable[[nn.Module], bool] | None) -> None:
    """Set back what makes no difference to the run, where its number may as well be another one that stayed.

    A kernel of 8 x 8 in a layer of 8 channels: what nothing reads is no size of channels on that evidence. Where the
    run differs in what is not compared with the original's (its views), `check` is asked.
    """
    kinds: dict[tuple[type, str], list[tuple[str, str]]] = {}
    for (path, key), old in follower.changed.items():
        if certain(key, old, known.wide.get(path, {})) in (None, old):
            kinds.setdefault((type(follower.module.get_submodule(path)), key), []).append((path, key))
    if not kinds:
        return
    follower.run()
    needed = [(op.name, op.args, op.kwargs) for op in follower.ops]
    trials = [[place for places in kinds.values() for place in places], *(kinds.values() if len(kinds) > 1 else ())]
    for places in trials:
        if follower.runs >= RUNS:
            return
        state = follower.state()
        follower.restore({place: new for place, new in state.items() if place not in places})
        progress = follower.run()
        alike = [(op.name, op.args, op.kwargs) for op in follower.ops] == needed
        if alike or (progress.problem is None and check is not None and check(follower.module)):
            if places is trials[0]:
                return
        else:
            follower.restore(state)


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
    for path in known.around(paths):
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
