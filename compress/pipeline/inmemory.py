"""Cut a module that is already in memory: what `compress.slim` does with its keywords."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from compress.budget.blocks import Limits
from compress.core.budgets import KINDS, Percent, asked
from compress.core.clock import Clock
from compress.core.errors import UsageError
from compress.core.progress import Silent
from compress.core.types import Attention, Network, Plan, Scope
from compress.evaluation.data import Data
from compress.evaluation.judge import judge
from compress.evaluation.stages import final
from compress.pipeline.making import Images, made
from compress.pipeline.opening import rounding
from compress.pipeline.options import SlimOptions
from compress.pipeline.tuning import Tuning, tune_options
from compress.recovery.training.recipe import Optimizer, Precision
from compress.recovery.training.team import joined
from compress.report.assemble import judgement, report_of
from compress.report.types import SlimReport, Source
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
    size: float | str | None
    steps: int
    max_drop: float | None
    min_agreement: float | None
    time_budget: float | str | None
    data: Tensor | tuple[Tensor, Tensor] | None
    widths: Mapping[str, int] | str | None
    drop_dead: bool | None
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
    finetune: int
    distill: int
    distill_features: bool
    train: Tensor | tuple[Tensor, Tensor] | None
    lr: float | None
    batch_size: int | None
    optimizer: Optimizer | str | None
    precision: Precision | str
    verify: bool


def cut_in_memory(model: nn.Module, example_input: Tensor | tuple[Any, ...], given: Keywords) -> Result:
    """Remove channels from `model`, which is left untouched, as the keywords say."""
    block = rounding(given.round_to)
    example = example_input if isinstance(example_input, tuple) else (example_input,)
    options = _cut_options(given, block[0])
    network = Network(name=type(model).__name__, module=model, example=example, kind="module")
    inputs = _joined(given.calibration)
    images = Images(data=_data(given.data), inputs=inputs, labels=given.labels, training=_training(given, inputs))
    asked_for = SlimOptions(
        checkpoint=Path(network.name),
        steps=given.steps,
        max_drop=given.max_drop,
        min_agreement=given.min_agreement,
        time_budget=given.time_budget,
        finetune=given.finetune,
        distill=given.distill,
        distill_features=given.distill_features,
        lr=given.lr,
        batch_size=given.batch_size,
        optimizer=None if given.optimizer is None else Optimizer(given.optimizer),
        precision=Precision(given.precision),
    )
    with joined(next((str(p.device) for p in model.parameters()), "cpu")) as team:
        how = Tuning(asked_for, tune_options(asked_for), team, Silent(), Clock())
        done = made(network, options, images, how)
    cut, stages = done.cut, done.stages
    first = next((tuple(t.shape) for t in example if isinstance(t, Tensor)), ())
    report = report_of(
        cut, Source(name=network.name, kind="module", input_shape=first), how.clock.seconds, options, block
    )
    if images.data is not None:
        judged = judge(network, cut.delivered.module, cut.masked, images.data, how.told, 0, reached=final(stages))
        report = replace(report, **judgement(judged))
    report = replace(
        report, recovered=any(stage.kept for stage in stages[1:]), stages=stages, steps=done.steps, search=done.search
    )
    return Result(cut.delivered.module, cut.chosen.plan, report)


def _joined(inputs: Tensor | Iterable[Tensor] | None) -> Tensor | None:
    return inputs if inputs is None or isinstance(inputs, Tensor) else torch.cat(list(inputs))


def _training(given: Keywords, inputs: Tensor | None) -> Data | None:
    """What is trained on: `train`, else the calibration inputs; None where no training is asked for."""
    if given.finetune <= 0 and given.distill <= 0:
        return None
    if given.train is not None:
        return _data(given.train, "the inputs given as train")
    if inputs is None:
        raise UsageError("there are no inputs to train on", fix="give train=(inputs, labels); to distill, train=inputs")
    return _data(inputs if given.labels is None else (inputs, given.labels), "the calibration inputs")


def _data(given: Tensor | tuple[Tensor, Tensor] | None, name: str = "the inputs given as data") -> Data | None:
    """Inputs, with labels where there are some, as a data set. UsageError where their numbers differ."""
    if given is None:
        return None
    inputs, labels = given if isinstance(given, tuple) else (given, None)
    if labels is not None and len(labels) != len(inputs):
        raise UsageError(f"{name}: {len(inputs)} inputs but {len(labels)} labels", fix="give one label for each input")
    return Data(
        dataset=_Given(inputs, labels),
        length=len(inputs),
        class_names=(),
        name=name,
        preprocessing=None,
        labelled=labels is not None,
    )


class _Given(Dataset[tuple[Tensor, int]]):
    """Inputs with their labels; -1 where there are none."""

    def __init__(self, inputs: Tensor, labels: Tensor | None) -> None:
        self.inputs, self.labels = inputs, labels

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        return self.inputs[number], -1 if self.labels is None else int(self.labels[number])


def _cut_options(given: Keywords, block: int) -> CutOptions:
    budget = asked({name: getattr(given, name, None) for name in KINDS}, otherwise="plan" if given.plan else None)
    ratios = tuple((given.ratio or {}).items())
    if ratios and all(each is None for each in (budget, given.plan, given.max_drop, given.min_agreement)):
        budget = Percent(0)
    return CutOptions(
        budget=budget,
        scope=Scope(given.scope),
        importance=given.importance,
        limits=Limits(block, given.min_channels, tuple(given.keep), ratios, given.max_ratio),
        attention=Attention(given.attention),
        plan=given.plan,
        submodule=given.submodule,
        verify=given.verify,
    )
