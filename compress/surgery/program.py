"""Cut a network as a graph: export it, slice its parameters, rewrite the constants; nothing in it can be out of reach.

The result keeps the names of the parameters, trains (dropout and batch norm follow train() and eval()), saves and
exports.
"""

from __future__ import annotations

import io
import logging
import operator
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, export
from torch.fx.experimental.symbolic_shapes import free_symbols
from torch.utils import _pytree as pytree

from compress.core.errors import TraceError, first_line
from compress.core.types import Plan
from compress.graph.analyse import Analysis, analyse
from compress.graph.modules import quiet_module, set_mode
from compress.graph.positions import all_renumbered
from compress.graph.rewrite import Scaled, Sizes, new_constants
from compress.surgery.cut import dead_labels, kept_indices, sizes_after
from compress.surgery.module import sliced_copy


class CutGraph(fx.GraphModule):
    """A rewritten graph that trains: dropout and batch norm follow train() and eval()."""

    def train(self, mode: bool = True) -> CutGraph:
        """Switch dropout and the batch norms that keep running statistics."""
        for node in self.graph.nodes:
            name = _name(node)
            if name == "aten.batch_norm" and node.args[3] is not None:
                node.update_arg(5, mode)
            elif name in ("aten.dropout", "aten.feature_dropout", "aten.alpha_dropout"):
                node.update_arg(2, mode)
        self.recompile()
        self.training = mode
        return self

    def eval(self) -> CutGraph:
        """Switch to evaluation."""
        return self.train(False)


def _name(node: fx.Node) -> str:
    return str(node.target.overloadpacket) if isinstance(node.target, torch._ops.OpOverload) else ""


@contextmanager
def _unheard() -> Iterator[None]:
    """Keep back what torch.export prints, logs and warns, a whole graph where it fails; its exception says why."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def graph_of(module: nn.Module, example: tuple[Any, ...], *, dynamic_batch: bool = True) -> fx.GraphModule:
    """Export `module` as a graph of ATen operators; the batch dimension stays dynamic where the network allows it.

    Raises TraceError where it cannot be exported.
    """
    if isinstance(module, fx.GraphModule):
        return module
    inputs = [t for t in pytree.tree_leaves(example) if isinstance(t, Tensor)]
    batch = inputs[0].shape[0] if inputs and inputs[0].dim() else 0
    dynamic = pytree.tree_map(
        lambda t: {0: Dim.AUTO} if isinstance(t, Tensor) and t.dim() and t.shape[0] == batch and batch > 1 else None,
        example,
    )
    failure: Exception | None = None
    for shapes in (dynamic, None) if dynamic_batch else (None,):
        with quiet_module(module), _unheard():
            set_mode(module, train=False)
            try:
                return export(module, example, dynamic_shapes=shapes, strict=False).module(check_guards=False)
            except Exception as error:  # noqa: BLE001 - the next, more static attempt may do; the last failure is told
                failure = error
    assert failure is not None
    raise TraceError(f"torch.export cannot trace the network: {first_line(failure)}") from failure


def fixed_batch(graph: fx.GraphModule) -> int | None:
    """The batch size that an exported graph is bound to; None where it takes any, or no tensor says.

    A graph of `graph_of` knows of its first input whether the first extent is a number or a symbol.
    """
    inputs = (node.meta.get("val") for node in graph.graph.nodes if node.op == "placeholder")
    first = next((value for value in inputs if isinstance(value, Tensor) and value.dim()), None)
    if first is None or free_symbols(first.shape[0]):
        return None
    return int(first.shape[0])


def cut_graph(graph: fx.GraphModule, example: tuple[Any, ...], plan: Plan) -> tuple[fx.GraphModule, Analysis]:
    """Cut a graph as planned; also return the analysis of the uncut graph, for the masked reference.

    Raises PlanError where the plan does not fit the graph.
    """
    analysis = analyse(graph, example, attention=plan.attention)
    known = {name: dims for name, dims in plan.keep.items() if name in analysis.shapes}
    dead = dead_labels(analysis, Plan(known, plan.attention))
    sizes = sizes_after(analysis, dead)
    twin = sliced_copy(graph, analysis.tensors, kept_indices(analysis, dead), all_renumbered(analysis.couplings, dead))
    assert isinstance(twin, fx.GraphModule)
    numbers = analysis.traces[0].nodes
    for node in list(twin.graph.nodes):
        if not isinstance(node.target, torch._ops.OpOverload):
            continue
        schema = node.target._schema.arguments
        bound = {a.name: a.default_value if a.has_default_value() else None for a in schema}
        bound.update({a.name: given for a, given in zip(schema, node.args, strict=False)})
        bound.update(node.kwargs)
        ins = {
            k: numbers[v.name] for k, v in bound.items() if isinstance(v, fx.Node) and isinstance(numbers[v.name], int)
        }
        outs = tuple(v for v in pytree.tree_leaves(numbers.get(node.name)) if isinstance(v, int))
        if _name(node) == "aten.sym_size":
            continue
        if _name(node) in _AS:
            _by_itself(node, numbers[node.args[1].name], outs[0], sizes)
            continue
        for key, new in new_constants(_name(node), bound, ins, outs, sizes).items():
            _set(node, schema, key, _computed(node, new))
    done = CutGraph(twin, twin.graph)
    done.graph.lint()
    return done.eval(), analysis


_AS = {
    "aten.expand_as": torch.ops.aten.expand.default,
    "aten.view_as": torch.ops.aten.view.default,
    "aten.reshape_as": torch.ops.aten.reshape.default,
}


def _by_itself(node: fx.Node, other: int, out: int, sizes: Sizes) -> None:
    """Give `x.expand_as(y)` sizes of its own, where y loses other channels than the result does."""
    after = sizes.after(out)
    if sizes.after(other) == after:
        return
    with node.graph.inserting_before(node):
        lengths = [
            node.graph.call_function(torch.ops.aten.sym_size.int, (node.args[1], d)) if had == has == n else n
            for d, (had, has, n) in enumerate(zip(sizes.shapes[other], sizes.after(other), after, strict=True))
        ]
    node.target, node.args = _AS[_name(node)], (node.args[0], lengths)


def _computed(node: fx.Node, new: Any) -> Any:
    """Put the sizes that the graph computes into the graph: what was computed, times new, over old."""
    if isinstance(new, list):
        return [_computed(node, item) for item in new]
    if not isinstance(new, Scaled):
        return new
    with node.graph.inserting_before(node):
        times = node.graph.call_function(operator.mul, (new.given, new.new))
        return node.graph.call_function(operator.floordiv, (times, new.old))


def _set(node: fx.Node, schema: Any, key: str, new: Any) -> None:
    at = next(i for i, a in enumerate(schema) if a.name == key)
    if at < len(node.args) and key not in node.kwargs:
        node.update_arg(at, new)
    else:
        node.update_kwarg(key, new)
    name = _name(node)
    if name == "aten.split" and isinstance(new, list):
        node.target = torch.ops.aten.split_with_sizes.default


def program_bytes(module: nn.Module, example: tuple[Any, ...], *, dynamic_batch: bool = True) -> bytes:
    """The network as the bytes of a .pt2 file: what a saved cut is replayed on where no architecture has a name."""
    graph = graph_of(module, example, dynamic_batch=dynamic_batch)
    inputs = [t for t in pytree.tree_leaves(example) if isinstance(t, Tensor)]
    batch = inputs[0].shape[0] if inputs and inputs[0].dim() else 0
    shapes = pytree.tree_map(
        lambda t: {0: Dim.AUTO} if isinstance(t, Tensor) and t.dim() and t.shape[0] == batch and batch > 1 else None,
        example,
    )
    buffer = io.BytesIO()
    torch.export.save(export(graph, example, dynamic_shapes=shapes if dynamic_batch else None, strict=False), buffer)
    return buffer.getvalue()
