"""Compute what variants of a network share once: the operators before the first one that differs.

The original runs under a dispatch mode that keeps the values that later operators read (`capture`). A variant then runs
its own code from the beginning, whatever that looks like, but its first operators are not computed: they give what was
kept, and stand-ins of the right shape where nobody looks any more (`resume`). Operators of a residual branch can be
left out in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from compress.graph.couplings import operands
from compress.graph.modules import fresh, quiet_module, set_mode, tensors_of
from compress.graph.trace import Op, Recorder, Ref, Trace, module_paths, tensors_in

Compute = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]


class DivergedError(Exception):
    """A run does not begin with the operators that were written down."""


def recorded(module: nn.Module, inputs: tuple[Any, ...]) -> Trace:
    """Run `module` once in evaluation on real tensors, and return every operator the dispatcher saw.

    Unlike `trace`, a graph module is called as it is, so that the operators are those of every later call.
    """
    inputs = fresh(inputs)
    run = Trace(on_meta=False, batch=len(inputs[0]))
    recorder = Recorder(run, {id(t): name for name, t in tensors_of(module).items()})
    run.inputs = tuple(recorder.number(t) for t in pytree.tree_leaves(inputs) if isinstance(t, Tensor))
    with quiet_module(module), module_paths(module, recorder):
        set_mode(module, train=False)
        with recorder:
            out = module(*inputs)
    run.outputs = tuple(recorder.number(t) for t in tensors_in(out))
    return run


def first_reading(run: Trace, names: Iterable[str]) -> int:
    """Position of the first operator that reads one of the parameters; the number of operators where none does."""
    values = {run.parameters[name] for name in names if name in run.parameters}
    return next((i for i, op in enumerate(run.ops) if values.intersection(operands(op))), len(run.ops))


def _written(op: Op) -> list[int]:
    """Values that the operator writes into."""
    schema = op.func._schema.arguments
    given = [*zip(schema, op.args, strict=False), *((a, op.kwargs[a.name]) for a in schema if a.name in op.kwargs)]
    return [g.value for a, g in given if isinstance(g, Ref) and a.alias_info is not None and a.alias_info.is_write]


def memory(run: Trace) -> list[int]:
    """For every value the number of the memory it lies in: a view shares that of what it views."""
    found = list(range(len(run.shapes)))
    for op in run.ops:
        schema = op.func._schema
        if not any(r.alias_info is not None for r in schema.returns):
            continue
        sources = [
            g.value
            for a, g in zip(schema.arguments, op.args, strict=False)
            if isinstance(g, Ref) and a.alias_info is not None
        ]
        for out in op.outs:
            if sources and out not in sources:
                found[out] = found[sources[0]]
    return found


@dataclass(frozen=True)
class Split:
    """Where a run is cut in two: before operator `at`.

    `live` are the values made before it and read after it; those in `fragile` are written into later on.
    """

    at: int
    live: frozenset[int]
    fragile: frozenset[int]


def split(run: Trace, at: int) -> Split:
    """Return the split at `at`, or the nearest earlier one at which a run can be resumed.

    Not possible is a prefix that writes into the network's inputs or parameters, or two kept values that share memory
    which is written into later.
    """
    places = memory(run)
    outside = {places[v] for v in (*run.inputs, *run.parameters.values())}
    writes = [{places[v] for v in _written(op)} for op in run.ops]
    for i, written in enumerate(writes[:at]):
        if written & outside:
            at = i
            break
    for here in range(at, -1, -1):
        later = set().union(*writes[here:])
        made = {v for op in run.ops[:here] for v in op.outs}
        read = {v for op in run.ops[here:] for v in operands(op)} | set(run.outputs)
        live = frozenset((made & read) - set(run.parameters.values()) - set(run.inputs))
        fragile = frozenset(v for v in live if places[v] in later)
        if len({places[v] for v in fragile}) == len({v for v in live if places[v] in later}):
            return Split(here, live, fragile)
    return Split(0, frozenset(), frozenset())


@dataclass(frozen=True, slots=True)
class Made:
    """What an operator gave: the tree of its results, and per leaf a stand-in's form, an argument's place, or a value.

    A form is (shape, strides, dtype, device); `values` are the numbers of the tensors among the leaves.
    """

    tree: Any
    leaves: tuple[Any, ...]
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Form:
    """What a tensor is like, without its values."""

    shape: torch.Size
    strides: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    def stand_in(self) -> Tensor:
        """Return a tensor of this form with any values."""
        return torch.empty_strided(self.shape, self.strides, dtype=self.dtype, device=self.device)


@dataclass(frozen=True, slots=True)
class _Argument:
    place: int


@dataclass(frozen=True, slots=True)
class Held:
    """Everything that a run needs to begin at `split`: the operators before it, and the values that are kept."""

    split: Split
    ops: Sequence[Op]
    made: Sequence[Made]
    values: Mapping[int, Tensor]


class _Capture(TorchDispatchMode):
    """Runs everything and keeps, for each split, the values that are live there."""

    def __init__(self, run: Trace, splits: Sequence[Split]) -> None:
        super().__init__()
        self.run = run
        self.splits = {s.at: s for s in splits}
        self.wanted = {v for s in splits for v in s.live}
        self.values: dict[int, Tensor] = {}
        self.made: list[Made] = []
        self.held: dict[int, dict[int, Tensor]] = {}

    def reach(self) -> None:
        """Keep what is live here; what a later operator writes into is copied."""
        here = self.splits.get(len(self.made))
        if here is not None:
            self.held[here.at] = {v: self.values[v].clone() if v in here.fragile else self.values[v] for v in here.live}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operator and note what it gave."""
        self.reach()
        at = len(self.made)
        if at >= len(self.run.ops) or self.run.ops[at].func is not func:
            raise DivergedError
        out = func(*args, **(kwargs or {}))
        flat, tree = pytree.tree_flatten(out)
        leaves: list[Any] = []
        for leaf in flat:
            place = next((i for i, a in enumerate(args) if a is leaf), None) if isinstance(leaf, Tensor) else None
            if place is not None:
                leaves.append(_Argument(place))
            elif isinstance(leaf, Tensor):
                leaves.append(Form(leaf.shape, leaf.stride(), leaf.dtype, leaf.device))
            else:
                leaves.append(leaf)
        values = self.run.ops[at].outs
        tensors = [leaf for leaf in flat if isinstance(leaf, Tensor)]
        self.values.update((v, t) for v, t in zip(values, tensors, strict=True) if v in self.wanted)
        self.made.append(Made(tree, tuple(leaves), values))
        return out


def capture(
    module: nn.Module, inputs: tuple[Any, ...], run: Trace, splits: Sequence[Split]
) -> tuple[Any, dict[int, Held]]:
    """Run the original in evaluation; return its output, and by position of the split what a variant resumes from.

    Raises DivergedError where the network does other operators than in `run`.
    """
    mode, inputs = _Capture(run, splits), fresh(inputs)
    with quiet_module(module):
        set_mode(module, train=False)
        with mode:
            out = module(*inputs)
        mode.reach()
    return out, {at: Held(mode.splits[at], run.ops, mode.made, values) for at, values in mode.held.items()}


class Resume(TorchDispatchMode):
    """Computes only what comes behind the split; `computed` and `skipped` count operators.

    `without` are positions of further operators that are not computed, those of a residual branch; `joins` maps the
    position of the addition behind them to the place of the argument that stays, the shortcut.
    """

    def __init__(
        self,
        held: Held,
        compute: Compute | None = None,
        without: frozenset[int] = frozenset(),
        joins: Mapping[int, int] | None = None,
    ) -> None:
        """`compute` runs an operator: by default as PyTorch does."""
        super().__init__()
        self.held = held
        self.compute = compute or _plainly
        self.without = without
        self.joins = joins or {}
        self.computed = self.skipped = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Give what was kept, or compute."""
        at = self.computed + self.skipped
        if at in self.joins or at in self.without or at < self.held.split.at:
            self.skipped += 1
            if self.held.ops[at].func is not func:
                raise DivergedError
            return _joined(args, self.joins[at], func) if at in self.joins else self._given(self.held.made[at], args)
        self.computed += 1
        return self.compute(func, args, kwargs or {})

    def _given(self, made: Made, args: tuple[Any, ...]) -> Any:
        numbers = iter(made.values)
        leaves = []
        for leaf in made.leaves:
            if isinstance(leaf, _Argument):
                next(numbers)
                leaves.append(args[leaf.place])
            elif isinstance(leaf, Form):
                leaves.append(self._value(next(numbers), leaf))
            else:
                leaves.append(leaf)
        return pytree.tree_unflatten(leaves, made.tree)

    def _value(self, number: int, form: Form) -> Tensor:
        kept = self.held.values.get(number)
        if kept is None:
            return form.stand_in()
        return kept.clone() if number in self.held.split.fragile else kept.detach()


def _plainly(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return func(*args, **kwargs)


def _joined(args: tuple[Any, ...], shortcut: int, func: Any) -> Any:
    """Return the shortcut's value in the form in which the addition would give it."""
    if not func._schema.is_mutable:
        return args[shortcut].clone()
    if shortcut != 0:
        args[0].copy_(args[shortcut])
    return args[0]


def resume(module: nn.Module, inputs: tuple[Any, ...], mode: Resume) -> Any:
    """Run a variant in evaluation from where `mode` says; raises DivergedError where it does not begin alike."""
    inputs = fresh(inputs)
    with quiet_module(module):
        set_mode(module, train=False)
        with mode:
            return module(*inputs)
