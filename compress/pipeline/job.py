"""One network that is to be cut and won back, with everything a cut needs; and a cut for one kind of budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any

from torch import nn

from compress.core.budgets import Budget
from compress.core.clock import Clock
from compress.core.progress import Progress
from compress.core.types import Search, StageResult, Step
from compress.importance import Evidence, remarks
from compress.surgery.network import cut_network
from compress.surgery.planned import Cut, CutOptions

# From the network that was cut, and the cut, to the steps of its recovery; the cut network is repaired in place.
WinBack = Callable[[nn.Module, Cut], tuple[StageResult, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A network, how it is cut, and how it is won back; `look` gives what criteria may see of a network."""

    module: nn.Module
    example: tuple[Any, ...]
    options: CutOptions
    win_back: WinBack
    look: Callable[[nn.Module], Evidence | None]
    told: Progress
    clock: Clock
    dynamic_batch: bool = True

    def cut(self, **changes: Any) -> Cut:
        """Cut the network, with some options changed."""
        options = replace(self.options, **changes)
        cut = cut_network(self.module, self.example, options, self.clock, dynamic_batch=self.dynamic_batch)
        path, evidence = cut.chosen.plan.submodule, options.evidence
        if path is not None and evidence is not None:
            evidence = replace(evidence, submodule=path)
        said = remarks(cut.chosen.criterion, evidence)
        return replace(cut, chosen=replace(cut.chosen, notes=(*cut.chosen.notes, *said))) if said else cut


@dataclass(frozen=True, slots=True)
class Made:
    """The cut network with the steps of its recovery, the cuts that led to it, and the search that chose it."""

    cut: Cut
    stages: tuple[StageResult, ...]
    steps: tuple[Step, ...] = ()
    search: Search | None = None

    @property
    def figures(self) -> dict[str, Any]:
        """The fields of a report that tell how the network was made and won back."""
        recovered = any(stage.kept for stage in self.stages[1:])
        return {"recovered": recovered, "stages": self.stages, "steps": self.steps, "search": self.search}


@singledispatch
def cut_for(budget: Budget | None, job: Job) -> Cut:
    """Cut for a budget. A kind that has to measure the cut network, and cut again, registers its own way here."""
    return job.cut(budget=budget)


@singledispatch
def settled(budget: Budget, job: Job) -> Budget:
    """The budget as a number where it is a share of something that has to be measured on the original."""
    del job
    return budget
