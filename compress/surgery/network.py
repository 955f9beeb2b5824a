"""Cut a network: all of it, one submodule inside its place, or the part that can be traced; and replay such a cut."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from compress.core.clock import Clock
from compress.core.errors import CompressError, TraceError
from compress.core.types import Costs, Plan
from compress.graph.analyse import analyse
from compress.graph.costs import batch_of, costs
from compress.graph.modules import tensors_of
from compress.graph.trace import trace
from compress.surgery.cut import dead_labels
from compress.surgery.deliver import deliver
from compress.surgery.planned import Cut, CutOptions, cut_whole
from compress.surgery.shortcuts import repeated
from compress.surgery.submodule import find, inputs_of, replaced


def cut_network(
    module: nn.Module, example: tuple[Any, ...], options: CutOptions, clock: Clock, *, dynamic_batch: bool = True
) -> Cut:
    """Cut `module`, or the submodule that the options (or the plan) name; the input module is left untouched.

    Where the whole network cannot be traced, its largest part that can be is cut, and `Delivered.why` says so.
    Raises PlanError where nothing can leave, ExactnessError where the cut is not exact, TraceError where the network
    does not run.
    """
    path = options.plan.submodule if options.plan is not None else options.submodule
    if path is not None:
        return _inside(module, example, path, options, clock, dynamic_batch=dynamic_batch)
    try:
        return cut_whole(module, example, options, clock, dynamic_batch=dynamic_batch)
    except TraceError as error:
        if options.plan is not None:
            raise
        for part in _parts(module):
            try:
                cut = _inside(module, example, part, options, clock, dynamic_batch=dynamic_batch)
            except CompressError:
                continue
            why = f"only {part} was cut, since {error.what}; {cut.delivered.why}".removesuffix("; ")
            return replace(cut, delivered=replace(cut.delivered, why=why))
        raise


def _parts(module: nn.Module) -> list[str]:
    """The network's children with parameters, largest first."""
    sizes = {name: sum(p.numel() for p in child.parameters()) for name, child in module.named_children()}
    return sorted((name for name, size in sizes.items() if size), key=lambda name: -sizes[name])


def _inside(
    module: nn.Module, example: tuple[Any, ...], path: str, options: CutOptions, clock: Clock, *, dynamic_batch: bool
) -> Cut:
    """Cut one submodule on the inputs that the network gives it, and put it back into its place."""
    inner = inputs_of(module, example, path)
    plan = None if options.plan is None else replace(options.plan, submodule=None)
    evidence = None if options.evidence is None else replace(options.evidence, submodule=path)
    part = replace(options, plan=plan, submodule=None, evidence=evidence)
    cut = cut_whole(find(module, path), inner, part, clock, dynamic_batch=dynamic_batch)
    whole = replaced(module, path, cut.delivered.module)
    # By difference: what the rest does may hang on the values that the submodule gives (proposals of a detector).
    recorded = trace(module, example)
    before = costs(module, recorded)
    saved = (cut.before.macs - cut.after.macs) * batch_of(cut.analysis.traces[0])
    return replace(
        cut,
        delivered=replace(cut.delivered, module=whole),
        chosen=replace(cut.chosen, plan=replace(cut.chosen.plan, submodule=path)),
        masked=replaced(module, path, cut.masked),
        before=before,
        after=Costs(
            parameters=sum(p.numel() for p in whole.parameters()),
            macs=before.macs - saved // batch_of(recorded),
        ),
    )


def replay(
    module: nn.Module, example: tuple[Any, ...], plan: Plan, *, as_graph: bool = False, dynamic_batch: bool = True
) -> nn.Module:
    """Cut `module` as an earlier run did, without checking again; the input module is left untouched.

    Raises PlanError where the plan does not fit.
    """
    if plan.submodule is not None:
        inner, part = inputs_of(module, example, plan.submodule), find(module, plan.submodule)
        there = replace(plan, submodule=None)
        new = replay(part, inner, there, as_graph=as_graph, dynamic_batch=dynamic_batch)
        return replaced(module, plan.submodule, new)
    if plan.drop:
        module = repeated(module, example, plan.drop, dynamic_batch=dynamic_batch)
        known = tensors_of(module)
        plan = replace(plan, drop={}, keep={name: dims for name, dims in plan.keep.items() if name in known})
        if not plan.keep:
            return module
    analysis = analyse(module, example, attention=plan.attention)
    dead = dead_labels(analysis, plan)
    done = deliver(module, example, analysis, plan, dead, verify=False, as_graph=as_graph, dynamic_batch=dynamic_batch)
    return done.module


def composed(first: Plan | None, second: Plan) -> Plan:
    """The one plan that does what `first` and then `second` do."""
    if first is None:
        return second
    if first.submodule != second.submodule:
        first, second = _named_in_full(first), _named_in_full(second)
    keep = {name: dict(dims) for name, dims in first.keep.items()}
    for name, dims in second.keep.items():
        mine = keep.setdefault(name, {})
        for dim, kept in dims.items():
            mine[dim] = tuple(mine[dim][i] for i in kept) if dim in mine else kept
    return replace(second, keep=keep, drop={**first.drop, **second.drop})


def _named_in_full(plan: Plan) -> Plan:
    """The plan with the parameter names of the whole network."""
    prefix = "" if plan.submodule is None else f"{plan.submodule}."
    return replace(plan, keep={f"{prefix}{name}": dims for name, dims in plan.keep.items()}, submodule=None)
