"""`--drop-blocks`: choose residual blocks, take them out before channels are cut, and tell what became of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import numpy as np

from compress.core.budgets import Macs, NoChannels, Params
from compress.core.errors import PlanError, UsageError
from compress.core.progress import Progress
from compress.core.types import Network, Plan
from compress.evaluation.data import Data
from compress.evaluation.variants import Tally, Variant, measure
from compress.graph.analyse import analyse
from compress.graph.costs import costs
from compress.graph.modules import tensors_of
from compress.graph.prefix import recorded
from compress.graph.residual import Block, Leaving, blocks
from compress.graph.trace import trace
from compress.surgery.deliver import Delivered
from compress.surgery.network import composed
from compress.surgery.planned import Chosen, Cut, CutOptions
from compress.surgery.shortcuts import Shortened, Zeroed, shortened

IMAGES = 1024  # on which blocks are compared


@dataclass(frozen=True, slots=True)
class Gone:
    """The network `full` and what is left of it as `network`, where blocks were taken out; `notes` say which and why.

    `options` are what is still to be cut.
    """

    full: Network
    network: Network
    options: CutOptions
    result: Shortened | None = None
    notes: tuple[str, ...] = ()
    plan: Plan = field(default_factory=lambda: Plan({}))

    @property
    def alone(self) -> bool:
        """Whether nothing else is to be cut."""
        plan = self.options.plan
        return isinstance(self.options.budget, NoChannels) or (plan is not None and not plan.keep)

    def of_the_whole(self) -> Gone:
        """The same with a share of MACs or parameters counted from the whole original, as it was asked for.

        Where the blocks alone bring the network below it, no channel has to leave.
        """
        budget = self.options.budget
        if self.result is None or not isinstance(budget, Macs | Params):
            return self
        whole, left = (costs(n.module, trace(n.module, n.example)) for n in (self.full, self.network))
        name = "macs" if isinstance(budget, Macs) else "parameters"
        number = budget.of(getattr(whole, name))
        if getattr(left, name) > number:
            return replace(self, options=replace(self.options, budget=replace(budget, left=number)))
        note = f"{budget}: the blocks alone leave {getattr(left, name):,} {budget.noun}, so no channel left"
        return replace(self, options=replace(self.options, budget=NoChannels()), notes=(*self.notes, note))

    def after(self, earlier: Plan | None) -> Plan | None:
        """The plan of what left before channels are cut: what an earlier run took away, and the blocks."""
        if self.result is None:
            return earlier
        return self.plan if earlier is None else composed(earlier, self.plan)

    def whole(self) -> Cut:
        """The cut where nothing else is to be cut; its network is the one without the blocks."""
        assert self.result is not None
        module, example = self.network.module, self.network.example
        analysis = analyse(module, example)
        after = costs(module, analysis.traces[0])
        return Cut(
            Delivered(module, self.result.own, self._why(), self.result.verdict),
            Chosen(Plan({}), None, sum(g.size for g in analysis.prunable)),
            analysis,
            np.zeros(len(analysis.component), dtype=bool),
            Zeroed(self.full.module, self.full.example, list(self.result.how)),
            after,
            after,
        )

    def _why(self) -> str:
        assert self.result is not None
        return ", ".join(f"{key}: {how}" for key, how in self.result.how.items())

    def counted(self, cut: Cut) -> Cut:
        """The cut with the costs and the error beside the whole original, and with what is to be said of the blocks."""
        if self.result is None:
            return cut
        verdict, first = cut.delivered.verdict, self.result.verdict
        if verdict is not None and first is not None and not self.alone:
            error = max(verdict.max_relative_error, first.max_relative_error)
            verdict = replace(
                verdict,
                max_relative_error=error,
                reference=f"{first.reference}; the channels against {verdict.reference}",
            )
        return replace(
            cut,
            before=costs(self.full.module, trace(self.full.module, self.full.example)),
            delivered=replace(cut.delivered, verdict=verdict, own=cut.delivered.own and self.result.own),
            chosen=replace(cut.chosen, notes=(*cut.chosen.notes, *self.notes)),
        )


def take_out(
    network: Network,
    options: CutOptions,
    asked: str | int | None,
    images: tuple[Data | None, Data | None],
    told: Progress,
) -> Gone:
    """Take out the blocks that `asked` names, or so many; without it the network stays as it is.

    `images` are those to compare blocks on: the first that is there. Raises UsageError or PlanError where none can
    be chosen, ExactnessError and TraceError where they cannot be taken out.
    """
    plan = options.plan
    replayed = dict(plan.drop) if plan is not None else {}
    if asked is None and not replayed:
        return Gone(network, network, options)
    if options.submodule is not None:
        raise UsageError("--drop-blocks and --submodule exclude each other", fix="drop blocks first, then cut the file")
    notes: tuple[str, ...] = ()
    keys = list(replayed)
    if asked is not None:
        keys, notes = _chosen(network, str(asked), images, told)
    with told.stage("take out blocks"):
        result = shortened(network.module, network.example, keys, dynamic_batch=network.dynamic_batch)
    known = tensors_of(result.module)
    if plan is not None:
        plan = replace(plan, drop={}, keep={name: dims for name, dims in plan.keep.items() if name in known})
        options = replace(options, plan=plan)
    left = replace(network, module=result.module)
    return Gone(network, left, options, result, notes, Plan({}, drop=dict(result.how)))


def _chosen(
    network: Network, asked: str, images: tuple[Data | None, Data | None], told: Progress
) -> tuple[list[str], tuple[str, ...]]:
    """Keys of the blocks, and what is to be said of the choice."""
    found = blocks(recorded(network.module, tuple(network.example)))
    if not found:
        raise PlanError("the network has no residual block", fix="leave --drop-blocks out")
    if not asked.isdecimal():
        picked = _named(found, asked)
        return [b.key for b in picked], (f"reduced to their shortcuts: {', '.join(b.name for b in picked)}",)
    if not 0 < int(asked) <= len(found):
        raise PlanError(f"--drop-blocks {asked}: the network has {len(found)} blocks", fix="ask for at most so many")
    data = next((each for each in images if each is not None), None)
    if data is None:
        raise UsageError(
            f"--drop-blocks {asked} asks which blocks are missed least, and there are no images",
            fix="add --calibration or --data, or name the blocks: compress sensitivity lists them",
        )
    return _least_missed(network, found, int(asked), data, told)


def _named(found: Sequence[Block], asked: str) -> list[Block]:
    picked: dict[str, Block] = {}
    for name in asked.split(","):
        matching = [b for b in found if fnmatchcase(b.name, name.strip()) or fnmatchcase(b.key, name.strip())]
        if not matching:
            some = ", ".join(b.name for b in found[:6])
            raise PlanError(f"--drop-blocks: the network has no residual block {name.strip()!r}", fix=f"e.g. {some}")
        picked |= {b.key: b for b in matching}
    return list(picked.values())


def _least_missed(
    network: Network, found: Sequence[Block], count: int, data: Data, told: Progress
) -> tuple[list[str], tuple[str, ...]]:
    """One after the other the block without which the network does best, those before it being gone."""
    picked: list[Block] = []
    gone = Leaving(frozenset(), {})
    reached: Tally | None = None
    for _ in range(count):
        left = [b for b in found if b not in picked and not b.branch & gone.operators]
        if not left:
            raise PlanError("the blocks that are left lie inside those that are gone", fix="ask for fewer blocks")
        variants = [Variant(network.module, min(b.first, *gone.operators, b.first), gone | b.leaving) for b in left]
        fixed = None if network.dynamic_batch else len(network.example[0])
        done = measure(network.module, variants, data, told, limit=IMAGES, fixed=fixed, name="compare blocks")
        best = max(range(len(left)), key=lambda i: _worth(done.variants[i]))
        picked.append(left[best])
        gone, reached = gone | left[best].leaving, done.variants[best]
    assert reached is not None
    figure = (
        f"{100 * reached.agreement:.2f} % same answers" if reached.top1 is None else f"top-1 {100 * reached.top1:.2f} %"
    )
    text = f"reduced to their shortcuts: {', '.join(b.name for b in picked)}, missed least on {data.name} ({figure})"
    return [b.key for b in picked], (text,)


def _worth(reached: Tally) -> tuple[float, float]:
    first = reached.agreement if reached.top1 is None else reached.top1
    return first, 0.0 if reached.loss is None else -reached.loss
