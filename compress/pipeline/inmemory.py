"""Cut a module that is already in memory: what `compress.slim` does with its keywords."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from compress.core.choosing import Attention, Scope
from compress.core.clock import Clock
from compress.core.errors import UsageError
from compress.core.progress import Silent
from compress.core.types import Network, Plan
from compress.evaluation.data import Data
from compress.evaluation.judge import judge
from compress.evaluation.stages import final
from compress.pipeline.asking import cut_options
from compress.pipeline.latency import rounded
from compress.pipeline.making import Images, as_delivered, made
from compress.pipeline.opening import rounding
from compress.pipeline.options import SlimOptions
from compress.pipeline.shortening import take_out
from compress.pipeline.sized import missed
from compress.pipeline.tuning import Tuning, tune_options
from compress.recovery.training.recipe import Optimizer, Precision
from compress.recovery.training.team import joined
from compress.report.assemble import judgement, report_of
from compress.report.types import SlimReport, Source
from compress.surgery.network import composed


@dataclass(frozen=True, slots=True)
class Result:
    """What `slim` returns: the cut network, what was kept of it, and every figure."""

    model: nn.Module
    plan: Plan
    report: SlimReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What Python gives as tensors, and as a plan, where the command line names files."""

    plan: Plan | None
    calibration: Tensor | Iterable[Tensor] | None
    labels: Tensor | None
    data: Tensor | tuple[Tensor, Tensor] | None
    train: Tensor | tuple[Tensor, Tensor] | None


def cut_in_memory(model: nn.Module, example_input: Tensor | tuple[Any, ...], keywords: Mapping[str, Any]) -> Result:
    """Remove channels from `model`, which is left untouched, as the keywords of `compress.slim` say."""
    given = Given(**{field.name: keywords[field.name] for field in fields(Given)})
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps; the result may be compiled again
    name = type(model).__name__
    options = _options(name, {key: value for key, value in keywords.items() if not hasattr(given, key)})
    block = rounding(options.round_to)
    how_cut, tuning = cut_options(options, given.plan, block[0]), tune_options(options)
    example = example_input if isinstance(example_input, tuple) else (example_input,)
    network = Network(name=name, module=model, example=example, kind="module")
    inputs, data = _joined(given.calibration), _data(given.data)
    images = Images(data=data, inputs=inputs, labels=given.labels, training=_training(given, options, inputs))
    seen = _data(inputs, "the calibration inputs")
    told, clock = Silent(), Clock()
    with joined(next((str(p.device) for p in model.parameters()), "cpu")) as team:
        gone = take_out(network, how_cut, options.drop_blocks, (seen, data), told)
        done = made(gone, images, Tuning(options, tuning, team, told, clock))
    cut, stages = done.cut, done.stages
    first = next((tuple(t.shape) for t in example if isinstance(t, Tensor)), ())
    report = report_of(
        cut, Source(name=name, kind="module", input_shape=first), clock.seconds, gone.options, rounded(cut, block)
    )
    if data is not None:
        judged = judge(
            as_delivered(network, cut),
            cut.delivered.module,
            cut.masked,
            data,
            told,
            options.seed,
            reached=final(stages),
        )
        report = replace(report, **judgement(judged))
    oversize = missed(gone.options.budget, network, cut.delivered.module)
    report = replace(report, **done.figures, warnings=(*report.warnings, *oversize))
    plan = composed(gone.after(None), cut.chosen.plan)
    return Result(cut.delivered.module, plan, report)


def _options(name: str, given: Mapping[str, Any]) -> SlimOptions:
    """The keywords as the command line has them."""
    kinds = {"scope": Scope, "attention": Attention, "optimizer": Optimizer, "precision": Precision}
    read = {key: kind(given[key]) for key, kind in kinds.items() if given[key] is not None}
    several = {"keep": tuple(given["keep"]), "ratio": tuple((given["ratio"] or {}).items())}
    return SlimOptions(checkpoint=Path(name), **{**given, **read, **several})


def _joined(inputs: Tensor | Iterable[Tensor] | None) -> Tensor | None:
    return inputs if inputs is None or isinstance(inputs, Tensor) else torch.cat(list(inputs))


def _training(given: Given, options: SlimOptions, inputs: Tensor | None) -> Data | None:
    """What is trained on: `train`, else the calibration inputs; None where no training is asked for."""
    if options.finetune <= 0 and options.distill <= 0:
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
