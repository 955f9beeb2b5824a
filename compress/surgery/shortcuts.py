"""Take residual blocks out of a network: what is left of each is its shortcut.

In the user's own class the block's module is replaced by its shortcut, or the modules of its branch by ones that do
nothing; where neither gives what the original gives with the branch's output multiplied by zero, the exported graph is
rewritten, in which nothing is out of reach.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from compress.core.errors import ExactnessError, PlanError
from compress.core.types import Verdict
from compress.graph.couplings import operands
from compress.graph.modules import fresh, quiet_module, set_mode, tensors_of
from compress.graph.prefix import recorded
from compress.graph.residual import Block, around, blocks
from compress.graph.trace import Op, Trace, tensors_in, trace
from compress.surgery.module import twin
from compress.surgery.program import CutGraph, graph_of
from compress.surgery.silence import Double, double_output
from compress.surgery.verify import TOLERANCE, worst

REFERENCE = "the original with the branches' outputs multiplied by zero"


class How(StrEnum):
    """How a block was taken out: its module replaced by the shortcut (and the ReLU), its branch emptied, or a graph."""

    SHORTCUT = "shortcut"
    SHORTCUT_RELU = "shortcut and relu"
    BRANCH = "branch"
    GRAPH = "graph"


class Nothing(nn.Module):
    """Gives zero, whatever it reads: the first module of a branch that was taken out."""

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        """Return a zero without dimensions, which adds nothing to a tensor of any shape."""
        return x.new_zeros(())


class Through(nn.Module):
    """Gives what it reads: a further module of a branch that was taken out."""

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        """Return x."""
        return x


@dataclass(frozen=True, slots=True)
class Shortened:
    """A network without some blocks: `how` each was taken out, by key; `verdict` against the original, if checked."""

    module: nn.Module
    how: Mapping[str, str]
    verdict: Verdict | None

    @property
    def own(self) -> bool:
        """Whether it is still the user's class."""
        return How.GRAPH not in self.how.values()


def shortened(
    module: nn.Module, example: tuple[Any, ...], keys: Sequence[str], *, dynamic_batch: bool = True
) -> Shortened:
    """Take out the blocks of these keys, one after the other; the input module is left untouched.

    Raises PlanError where there is no such block, ExactnessError where no way gives the right result, TraceError where
    a graph is needed and cannot be exported.
    """
    wide = _wide(example)
    how: dict[str, str] = {}
    now = module
    for key in keys:
        want = zeroed_output(module, wide, [*how, key])
        made = None
        for way in How:
            try:
                made = without(now, example, key, way, dynamic_batch=dynamic_batch)
                error = worst(want, double_output(made, wide)) if made is not None else float("inf")
            except Exception:
                if way is How.GRAPH:
                    raise
                continue
            if made is not None and error <= TOLERANCE:
                now, how[key] = made, way
                break
        else:
            raise ExactnessError(
                f"the block {key} cannot be taken out exactly", fix="leave it in, and report this network"
            )
    return Shortened(now, how, Verdict(max_relative_error=error, tolerance=TOLERANCE, reference=REFERENCE))


def repeated(
    module: nn.Module, example: tuple[Any, ...], how: Mapping[str, str], *, dynamic_batch: bool = True
) -> nn.Module:
    """Take out blocks as an earlier run did, without checking again; PlanError where the network has no such block."""
    for key, way in how.items():
        made = without(module, example, key, How(way), dynamic_batch=dynamic_batch)
        if made is None:
            raise PlanError(f"the block {key} cannot be taken out as the plan says", fix="use the network it is from")
        module = made
    return module


def find_block(found: Sequence[Block], key: str) -> Block:
    """The block of this key; PlanError where there is none."""
    for block in found:
        if block.key == key:
            return block
    raise PlanError(f"the network has no residual block {key}", fix="compress sensitivity lists its blocks")


def without(
    module: nn.Module, example: tuple[Any, ...], key: str, way: How, *, dynamic_batch: bool = True
) -> nn.Module | None:
    """Take the block out in one way; None where that is no way for this block. The result is not checked."""
    if way is How.GRAPH:
        return _in_graph(graph_of(module, example, dynamic_batch=dynamic_batch), example, key)
    if isinstance(module, fx.GraphModule):
        return None
    run = recorded(module, example)
    block = find_block(blocks(run), key)
    if way is How.BRANCH:
        return _emptied(module, run, block)
    return _replaced(module, run, block, relu=way is How.SHORTCUT_RELU)


def _replaced(module: nn.Module, run: Trace, block: Block, *, relu: bool) -> nn.Module | None:
    """Replace the module that holds the block, and no other, by the shortcut under its own name."""
    if block.name == block.key:
        return None
    kept: nn.Module = nn.Identity()
    if not block.identity:
        inside = [run.ops[i].path for i in block.beside]
        inner = around(inside).removeprefix(f"{block.name}.")
        if inner == around(inside) or not inner:
            return None
        kept = _held(inner, module.get_submodule(f"{block.name}.{inner}"))
    if relu:
        kept = nn.Sequential(OrderedDict([("kept", kept), ("relu", nn.ReLU())])) if block.identity else kept
        if not block.identity:
            kept.add_module("relu", nn.ReLU())
    return _with(module, {block.name: kept})


def _held(path: str, module: nn.Module) -> nn.Sequential:
    """The module inside Sequentials, so that its parameters keep their names."""
    head, _, rest = path.partition(".")
    return nn.Sequential(OrderedDict([(head, _held(rest, module) if rest else module)]))


def _emptied(module: nn.Module, run: Trace, block: Block) -> nn.Module | None:
    """Replace the modules that only the branch runs: the first gives zero, the others what they read."""
    where: dict[str, set[int]] = {}
    for i, op in enumerate(run.ops):
        path = op.path
        while path:
            where.setdefault(path, set()).add(i)
            path = path.rpartition(".")[0]
    own = [path for path, ops in where.items() if ops & block.branch and not ops - block.branch - _unread(run)]
    outer = [p for p in own if not any(p.startswith(f"{other}.") for other in own)]
    if not outer:
        return None
    outer.sort(key=lambda path: min(where[path]))
    return _with(module, {path: Through() if number else Nothing() for number, path in enumerate(outer)})


def _unread(run: Trace) -> set[int]:
    """Operators that read no tensor: they only make empty ones."""
    return {i for i, op in enumerate(run.ops) if not operands(op)}


def _with(module: nn.Module, others: Mapping[str, nn.Module]) -> nn.Module:
    """Copy `module` with other modules at these paths."""
    memo: dict[int, Any] = {}
    for path, other in others.items():
        memo[id(module.get_submodule(path))] = (
            twin(other, memo) if next(other.parameters(), None) is not None else other
        )
    copied: nn.Module = twin(module, memo)
    return copied


def _in_graph(graph: fx.GraphModule, example: tuple[Any, ...], key: str) -> fx.GraphModule:
    """Let what reads the addition read the shortcut, and clear away what nobody reads any more."""
    copied = twin(graph, {})
    run = trace(copied, example)
    block = find_block(blocks(run), key)
    value = run.ops[block.join].outs[0]
    joins = [n for n in copied.graph.nodes if run.nodes.get(n.name) == value and "add" in str(n.target)]
    if len(joins) != 1:
        raise PlanError(f"the addition of block {key} is not in the exported graph", fix="report this network")
    (join,) = joins
    join.replace_all_uses_with(join.args[block.shortcut])
    copied.graph.erase_node(join)
    for node in reversed(list(copied.graph.nodes)):
        if not node.users and node.op in ("call_function", "get_attr", "call_module"):
            copied.graph.erase_node(node)
    read = {n.target for n in copied.graph.nodes if n.op == "get_attr"}
    for name in list(tensors_of(copied)):
        if name not in read:
            owner, _, last = name.rpartition(".")
            delattr(copied.get_submodule(owner), last)
    done = CutGraph(copied, copied.graph)
    done.graph.lint()
    return done.eval()


class _Zeroing(TorchDispatchMode):
    """Runs the original, and multiplies the branches' outputs by zero where they are added."""

    def __init__(self, ops: Sequence[Op], branches: Mapping[int, int]) -> None:
        super().__init__()
        self.ops, self.branches, self.at = ops, branches, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operator; those that widen to float64 are not in the recorded run."""
        here = self.at < len(self.ops) and self.ops[self.at].func is func
        if here:
            place = self.branches.get(self.at)
            self.at += 1
            if place == 0 and func._schema.is_mutable:
                args[0].mul_(0)
            elif place is not None:
                args = tuple(a * 0 if i == place else a for i, a in enumerate(args))
        return func(*args, **(kwargs or {}))


class Zeroed(nn.Module):
    """The original with the branches' outputs multiplied by zero, as a module; it shares the original's parameters."""

    def __init__(self, module: nn.Module, example: tuple[Any, ...], keys: Sequence[str]) -> None:
        """`keys` name the blocks."""
        super().__init__()
        self._original = [module]  # not registered: switching this module's mode must not switch the original's
        self._run = recorded(module, example)
        found = blocks(self._run)
        picked = [find_block(found, key) for key in keys]
        self._branches = {block.join: 1 - block.shortcut for block in picked}

    def forward(self, *inputs: Any) -> Any:
        """Run the original without what the branches add."""
        (original,) = self._original
        inputs = fresh(inputs)
        with quiet_module(original):
            set_mode(original, train=False)
            with _Zeroing(self._run.ops, self._branches):
                return original(*inputs)


def zeroed_output(module: nn.Module, example: tuple[Any, ...], keys: Sequence[str]) -> list[Tensor]:
    """Outputs of the original with these branches multiplied by zero, in float64; `example` is float64."""
    narrow = pytree.tree_map_only(Tensor, lambda t: t.float() if t.is_floating_point() else t, example)
    zeroed = Zeroed(module, narrow, keys)
    with Double():
        return tensors_in(zeroed(*example))


def _wide(example: tuple[Any, ...]) -> tuple[Any, ...]:
    wide: tuple[Any, ...] = pytree.tree_map_only(Tensor, lambda t: t.double() if t.is_floating_point() else t, example)
    return wide
