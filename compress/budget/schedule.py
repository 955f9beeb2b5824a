"""A budget in several steps: what may be left after each of them, every step taking the same share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch

from compress.budget.amounts import meter_of
from compress.core.budgets import Amount, Budget, Percent
from compress.core.errors import UsageError
from compress.graph.analyse import Analysis


@dataclass(frozen=True, slots=True)
class Way:
    """Step `step` of `steps`, from 1; `original` is the uncut network, of whose `total` free channels `gone` have left.

    `total` is None before the first step.
    """

    step: int
    steps: int
    original: Analysis
    total: int | None = None
    gone: int = 0

    def share(self, left: float) -> float:
        """What is left after this step where `left` is left after all of them: a geometric series.

        >>> [round(Way(step, 2, None).share(0.25), 3) for step in (1, 2)]
        [0.5, 0.25]
        """
        return left if self.step == self.steps else left ** (self.step / self.steps)


@singledispatch
def part_of(budget: Budget, way: Way) -> Budget:
    """The budget of one step, for the network as the steps before have left it; a kind of budget registers its own."""
    if way.steps == 1:
        return budget
    raise UsageError(f"--steps cannot approach --{budget.option}", fix="use --macs, --params, --size or --percent")


@part_of.register
def part_of_percent(budget: Percent, way: Way) -> Budget:
    """So that in the end as many channels are gone as one step would take."""
    share = 1 - way.share(1 - budget.value)
    if way.total is None:
        return Percent(share)
    rest = way.total - way.gone
    return Percent(max(min((int(way.total * share + 1e-9) - way.gone + 1e-6) / max(rest, 1), 1 - 1e-9), 0.0))


@part_of.register
def part_of_amount(budget: Amount, way: Way) -> Budget:
    """A number, whatever the original's share of it is by then."""
    meter = meter_of(budget, way.original)
    start = meter.total / meter.per
    return type(budget)(max(way.share(min(budget.of(start) / start, 1.0)) * start, 1 + 1e-9))
