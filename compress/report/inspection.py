"""What `compress inspect` tells, as data: groups, layers in network order, totals, what stays and for which reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import nn

from compress.core.progress import Progress, Silent
from compress.core.types import Group, Reason
from compress.graph.analyse import Analysis
from compress.graph.carried import macs_carried, output_dims, parameters_carried
from compress.graph.costs import macs, norm_scales
from compress.graph.couplings import operands
from compress.importance import CRITERIA, Evidence, Weights, remarks, score

UNREAD = "no forward pass reads it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Smallest, middle and largest score of a group's channels; larger means keep."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupFacts:
    """One group and what it carries.

    `made` and `read` name the layers that make its channels and that read them. `macs` are those of one input that
    vanish when all its channels leave, `parameters` likewise. `outputs` counts the output channels of convolutions and
    products in it: a residual stream of 64 channels that five of them add to holds 320.
    """

    group: Group
    made: tuple[str, ...]
    read: tuple[str, ...]
    macs: int
    parameters: int
    outputs: int
    spread: Spread | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFacts:
    """A module's own parameters (or one bare parameter): `makes` and `reads` are (number of the group, indices).

    `shape` is that of its largest parameter, `kernel` whether that has two dimensions or more.
    """

    name: str
    shape: tuple[int, ...]
    makes: tuple[tuple[int, int], ...]
    reads: tuple[tuple[int, int], ...]
    kernel: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why channels stay, over the whole network: how many groups, their channels and their output channels.

    `operator` and `first` are what asks for it first, and where. A group that stays for several reasons counts in each.
    """

    why: str
    operator: str
    first: str
    groups: int
    channels: int
    outputs: int


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """Everything that is told about a network; `macs` are those of one input.

    `unknown` maps operators without a rule to where they are met, `unread` the parameters that no forward pass reads to
    their number of elements. `importance` names the criterion behind the spreads, None where nothing was scored;
    `unjudged` the groups that it cannot judge, `remarks` what has to be said of it.
    """

    network: str
    groups: tuple[GroupFacts, ...]
    layers: tuple[LayerFacts, ...]
    macs: int
    parameters: int
    unknown: Mapping[str, str]
    unread: Mapping[str, int]
    importance: str | None = None
    unjudged: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @cached_property
    def made(self) -> tuple[GroupFacts, ...]:
        """The groups that some layer in use makes; the others are channels of the input, buffers, and unread."""
        return tuple(g for g in self.groups if g.made and Reason(UNREAD) not in g.group.pinned)

    @cached_property
    def free(self) -> tuple[GroupFacts, ...]:
        """The groups whose channels may leave."""
        return tuple(g for g in self.groups if g.group.prunable)

    @property
    def channels(self) -> int:
        """Number of channels that may leave: what --percent takes a fraction of."""
        return sum(g.group.size for g in self.free)

    @property
    def outputs(self) -> tuple[int, int]:
        """Output channels of convolutions and products: those that may leave, and all."""
        return sum(g.outputs for g in self.free), sum(g.outputs for g in self.groups)

    @cached_property
    def causes(self) -> tuple[Cause, ...]:
        """Why channels stay, the reason that costs most output channels first."""
        found: dict[str, list[tuple[GroupFacts, Reason]]] = {}
        for facts in self.made:
            for reason in facts.group.pinned:
                found.setdefault(reason.why, []).append((facts, reason))
        causes = [
            Cause(
                why=why,
                operator=held[0][1].operator,
                first=held[0][1].where,
                groups=len(held),
                channels=sum(facts.group.size for facts, _ in held),
                outputs=sum(facts.outputs for facts, _ in held),
            )
            for why, held in found.items()
        ]
        return tuple(sorted(causes, key=lambda cause: (-cause.outputs, -cause.channels)))


def inspection(
    name: str,
    analysis: Analysis,
    *,
    importance: str | None = None,
    evidence: Evidence | None = None,
    progress: Progress | None = None,
) -> Inspection:
    """Gather everything about the analysed network `name`; `importance` also scores the groups that may leave.

    `evidence` is what criteria may look at that need inputs. Raises UsageError for an unknown criterion or one that
    lacks what it needs, PlanError where it can judge none of the groups.
    """
    told, groups = progress or Silent(), analysis.groups
    if importance is not None:
        CRITERIA[importance]  # an unknown name is told before the work
    with told.stage("count what every group carries", len(groups)) as advance:
        carried = macs_carried(analysis, groups, advance)
    with told.stage("score"):
        spreads, unjudged = _spreads(analysis, importance, evidence)
    outputs, owners = output_dims(analysis), _owners(analysis)
    own = {n: t.numel() for n, t in analysis.tensors.items() if isinstance(t, nn.Parameter)}
    facts = tuple(
        GroupFacts(
            group=group,
            made=_distinct(owners[m.parameter] for m in group.members if m.produces and m.parameter in owners),
            read=_distinct(owners[m.parameter] for m in group.members if not m.produces and m.parameter in owners),
            macs=carried[i],
            parameters=parameters_carried(analysis, group),
            outputs=sum(m.indices.size for m in group.members if outputs.get(m.parameter) == m.dim),
            spread=spreads.get(group.name),
        )
        for i, group in enumerate(groups)
    )
    return Inspection(
        network=name,
        groups=facts,
        layers=_layers(analysis, groups, owners),
        macs=macs(analysis.traces[0]),
        parameters=sum(own.values()),
        unknown=dict(analysis.unknown),
        unread={n: own[n] for n in analysis.unused if n in own},
        importance=importance,
        unjudged=unjudged,
        remarks=remarks(importance, evidence),
    )


def _spreads(
    analysis: Analysis, importance: str | None, evidence: Evidence | None
) -> tuple[dict[str, Spread], tuple[str, ...]]:
    if importance is None:
        return {}, ()
    weights = Weights(analysis.tensors, norm_scales(analysis.traces), evidence)
    scores, unjudged = score(analysis.prunable, weights, importance)
    return {
        name: Spread(low=float(s.min()), middle=float(np.median(s)), high=float(s.max())) for name, s in scores.items()
    }, unjudged


def _owners(analysis: Analysis) -> dict[str, str]:
    """Parameter name -> its layer: the module it belongs to, or itself where that module holds others."""
    names = [name for name, tensor in analysis.tensors.items() if isinstance(tensor, nn.Parameter)]
    owners = {name: name.rpartition(".")[0] for name in names}
    inner = {""}  # modules that hold modules with parameters
    for owner in owners.values():
        parts = owner.split(".")
        inner.update(".".join(parts[:i]) for i in range(1, len(parts)))
    return {name: name if owner in inner else owner for name, owner in owners.items()}


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _layers(analysis: Analysis, groups: Sequence[Group], owners: Mapping[str, str]) -> tuple[LayerFacts, ...]:
    """Layers in the order in which the network first uses them."""
    makes: dict[str, dict[int, int]] = {}
    reads: dict[str, dict[int, int]] = {}
    for i, group in enumerate(groups):
        for member in group.members:
            layer = owners.get(member.parameter)
            if layer is not None:
                side = (makes if member.produces else reads).setdefault(layer, {})
                side[i] = max(side.get(i, 0), member.indices.size)
    order = _first_use(analysis)
    held: dict[str, list[str]] = {}
    for name in sorted(owners, key=lambda name: order.get(name, len(order))):
        held.setdefault(owners[name], []).append(name)
    found = []
    for layer, names in held.items():
        shape = max((analysis.shapes[name] for name in names), key=len)
        pairs = [tuple(side.get(layer, {}).items()) for side in (makes, reads)]
        found.append(LayerFacts(name=layer, shape=shape, makes=pairs[0], reads=pairs[1], kernel=len(shape) > 1))
    return tuple(found)


def _first_use(analysis: Analysis) -> dict[str, int]:
    """Parameter name -> rank of the first operator that reads it; absent where none does."""
    order: dict[str, int] = {}
    for recorded in analysis.traces:
        names = {value: name for name, value in recorded.parameters.items()}
        for op in recorded.ops:
            for value in operands(op):
                if value in names:
                    order.setdefault(names[value], len(order))
    return order
