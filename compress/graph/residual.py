"""Residual blocks, found in a recorded run: additions of two values that part from one and meet again.

The operand that takes fewer multiply-accumulates to make is the shortcut, the other the branch. No name decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compress.graph.costs import macs_of
from compress.graph.couplings import operands
from compress.graph.rules.table import arguments
from compress.graph.trace import Op, Ref, Trace

_ADDS = ("aten.add", "aten.add_")


@dataclass(frozen=True, slots=True)
class Leaving:
    """Operators that are not computed any more, and for each addition behind them the place of what stays."""

    operators: frozenset[int]
    joins: Mapping[int, int]

    def __or__(self, other: Leaving) -> Leaving:
        """Leave out both."""
        return Leaving(self.operators | other.operators, {**self.joins, **other.joins})


@dataclass(frozen=True, slots=True)
class Block:
    """One residual block of a run.

    `key` is the path of the first layer of its branch, which names it whatever else is removed; `name` is the module
    that holds the block where that holds no other, else the key. `join` is the addition, `branch` the operators that
    only it waits for, `beside` those of the shortcut; `shortcut` is the place of the addition's operand that stays, and
    `identity` tells that this is the block's input itself. `parameters` are those that only the branch reads, `macs`
    what the branch costs (batch of the run).
    """

    key: str
    name: str
    join: int
    branch: frozenset[int]
    beside: frozenset[int]
    shortcut: int
    identity: bool
    parameters: tuple[str, ...]
    macs: int

    @property
    def first(self) -> int:
        """The first operator of the branch."""
        return min(self.branch)

    @property
    def leaving(self) -> Leaving:
        """The block reduced to its shortcut."""
        return Leaving(self.branch, {self.join: self.shortcut})


@dataclass(frozen=True, slots=True)
class _Flow:
    """The run with a new number for every result, so that writing in place makes a new value.

    `reads[i]` and `makes[i]` are the values of operator i; `ancestors[v]` all values that v was computed from.
    """

    reads: list[list[int]]
    makes: list[list[int]]
    maker: dict[int, int]
    ancestors: dict[int, frozenset[int]]


def _flow(run: Trace) -> _Flow:
    now: dict[int, int] = {}
    count = len(run.shapes)
    fixed = set(run.parameters.values())
    reads, makes, maker = [], [], {}
    ancestors: dict[int, frozenset[int]] = {}
    for i, op in enumerate(run.ops):
        read = [now.get(v, v) for v in operands(op) if v not in fixed]
        made = []
        for v in op.outs:
            now[v] = count
            made.append(count)
            maker[count] = i
            count += 1
        above: set[int] = set()
        for v in read:
            above |= ancestors.get(v, frozenset()) | {v}
        for v in made:
            ancestors[v] = frozenset(above)
        reads.append(read)
        makes.append(made)
    return _Flow(reads, makes, maker, ancestors)


def blocks(run: Trace) -> tuple[Block, ...]:
    """All residual blocks of the run whose branch holds a layer, in the order of their additions."""
    flow = _flow(run)
    readers: dict[int, set[int]] = {}
    for i, read in enumerate(flow.reads):
        for v in read:
            readers.setdefault(v, set()).add(i)
    found = [block for i, op in enumerate(run.ops) if (block := _block(run, flow, readers, i, op)) is not None]
    return tuple(_named(run, found))


def _block(run: Trace, flow: _Flow, readers: Mapping[int, set[int]], at: int, op: Op) -> Block | None:
    if op.name not in _ADDS or len(flow.reads[at]) != 2 or arguments(op).get("alpha", 1) != 1:
        return None
    if len(op.args) < 2 or not all(isinstance(a, Ref) for a in op.args[:2]):
        return None
    if run.shapes[op.args[0].value] != run.shapes[op.args[1].value]:
        return None
    one, two = flow.reads[at]
    above = [flow.ancestors.get(v, frozenset()) | {v} for v in (one, two)]
    common = above[0] & above[1]
    if one == two or not common:
        return None
    fork = max(common, key=lambda v: flow.maker.get(v, -1))
    exclusive = [_between(flow, fork, v) for v in (one, two)]
    costs = [sum(macs_of(run.ops[i], run.shapes.__getitem__) for i in ops) for ops in exclusive]
    side = int(costs[1] > costs[0])
    branch, other = exclusive[side], exclusive[1 - side]
    inside = {v for i in branch for v in flow.makes[i]}
    leaks = any(readers.get(v, set()) - branch - {at} for v in inside) or branch & other
    if not costs[side] or leaks or costs[0] == costs[1]:
        return None
    owners = _only_read_by(run, branch)
    layers = [n for n in owners if len(run.shapes[run.parameters[n]]) > 1]
    if not layers:
        return None
    key = layers[0].rpartition(".")[0] or layers[0]
    stays = (one, two)[1 - side]
    return Block(key, key, at, frozenset(branch), frozenset(other), 1 - side, stays == fork, tuple(owners), costs[side])


def _between(flow: _Flow, fork: int, value: int) -> set[int]:
    """Operators on the way from `fork` to `value`, and those that only prepare parameters for them."""
    if value == fork:
        return set()
    above = flow.ancestors.get(value, frozenset()) | {value}
    outside = flow.ancestors.get(fork, frozenset()) | {fork}
    return {flow.maker[v] for v in above - outside if v in flow.maker}


def _only_read_by(run: Trace, branch: set[int]) -> list[str]:
    """Parameters that only these operators read, in the order in which they are read."""
    names = {v: n for n, v in run.parameters.items()}
    elsewhere = {v for i, op in enumerate(run.ops) if i not in branch for v in operands(op)}
    read = [v for i in sorted(branch) for v in operands(run.ops[i])]
    return list(dict.fromkeys(names[v] for v in read if v in names and v not in elsewhere))


def _named(run: Trace, found: Sequence[Block]) -> list[Block]:
    """Name a block after the innermost module around it that holds no other."""
    holding = [around([run.ops[i].path for i in (*block.branch, block.join)]) for block in found]
    named = []
    for block, path in zip(found, holding, strict=True):
        inner = [p for p in holding if p == path or p.startswith(f"{path}.")]
        name = path if path and len(inner) == 1 else block.key
        named.append(Block(block.key, name, *(getattr(block, k) for k in Block.__slots__[2:])))
    return named


def around(paths: Sequence[str]) -> str:
    """The innermost module that holds all paths.

    >>> around(["layer1.0.conv1", "layer1.0"])
    'layer1.0'
    """
    parts = [p.split(".") for p in paths]
    shared = []
    for step in zip(*parts, strict=False):
        if len(set(step)) > 1:
            break
        shared.append(step[0])
    return ".".join(shared)
