"""Cut a module that is already in memory: what `compress.slim` does with its keywords."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from compress.budget.blocks import Limits
from compress.core.budgets import KINDS, Percent, asked
from compress.core.clock import Clock
from compress.core.progress import Silent
from compress.core.types import Attention, Plan, Scope, StageResult
from compress.evaluation.stages import evidence_of, recover
from compress.pipeline.opening import rounding
from compress.report.assemble import report_of
from compress.report.types import SlimReport, Source
from compress.surgery.network import cut_network
from compress.surgery.planned import CutOptions


@dataclass(frozen=True, slots=True)
class Result:
    """What `slim` returns: the cut network, what was kept of it, and every figure."""

    model: nn.Module
    plan: Plan
    report: SlimReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Keywords:
    """The keywords of `compress.slim`; see there."""

    percent: float | None
    macs: float | str | None
    params: float | str | None
    scope: Scope | str
    importance: str | None
    round_to: int | None
    min_channels: int
    keep: Sequence[str]
    ratio: Mapping[str, float] | None
    max_ratio: float
    attention: Attention | str
    plan: Plan | None
    submodule: str | None
    calibration: Tensor | Iterable[Tensor] | None
    labels: Tensor | None
    verify: bool


def cut_in_memory(model: nn.Module, example_input: Tensor | tuple[Any, ...], given: Keywords) -> Result:
    """Remove channels from `model`, which is left untouched, as the keywords say."""
    clock, block = Clock(), rounding(given.round_to)
    example = example_input if isinstance(example_input, tuple) else (example_input,)
    options = _cut_options(given, block[0])
    inputs = given.calibration
    if inputs is not None and not isinstance(inputs, Tensor):
        inputs = torch.cat(list(inputs))
    if inputs is not None:
        options = replace(options, evidence=evidence_of(model, inputs, given.labels))
    cut = cut_network(model, example, options, clock)
    first = next((tuple(t.shape) for t in example if isinstance(t, Tensor)), ())
    source = Source(name=type(model).__name__, kind="module", input_shape=first)
    stages: tuple[StageResult, ...] = ()
    if inputs is not None:
        stages = recover(model, cut, inputs, Silent(), clock)
    report = replace(report_of(cut, source, clock.seconds, options, block), recovered=bool(stages), stages=stages)
    return Result(cut.delivered.module, cut.chosen.plan, report)


def _cut_options(given: Keywords, block: int) -> CutOptions:
    budget = asked({name: getattr(given, name, None) for name in KINDS}, otherwise="plan" if given.plan else None)
    ratios = tuple((given.ratio or {}).items())
    return CutOptions(
        budget=Percent(0) if budget is None and given.plan is None and ratios else budget,
        scope=Scope(given.scope),
        importance=given.importance,
        limits=Limits(block, given.min_channels, tuple(given.keep), ratios, given.max_ratio),
        attention=Attention(given.attention),
        plan=given.plan,
        submodule=given.submodule,
        verify=given.verify,
    )
