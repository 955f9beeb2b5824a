"""From a network and what was asked for to the cut, recovered network: at once, in steps, or by a search."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from compress.core.bounds import Bound, MaxDrop, bound_of, seconds_of
from compress.core.errors import DataError, UsageError
from compress.core.types import Network, StageResult
from compress.evaluation.data import Data
from compress.evaluation.metrics import agreement, evaluate
from compress.evaluation.stages import evidence_of, final, learned, recover
from compress.importance import Evidence
from compress.pipeline import latency as _latency  # noqa: F401 - enters how a latency is met
from compress.pipeline import sized as _sized  # noqa: F401 - enters how a file size is met
from compress.pipeline.affordable import Measure, Pursuit, cut_within
from compress.pipeline.job import Job, Made
from compress.pipeline.steps import cut_in_steps
from compress.pipeline.tuning import Tuning, tuned
from compress.surgery.planned import Cut, CutOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """What the network is judged on, learns from without labels (`labels` for criteria only), and is trained on."""

    data: Data | None = None
    inputs: Tensor | None = None
    labels: Tensor | None = None
    training: Data | None = None


def made(network: Network, cut_options: CutOptions, images: Images, how: Tuning) -> Made:
    """Cut the network and win it back as the options say. Raises what cutting, recovery and training raise."""
    options = how.options
    asked = bound_of(options.max_drop, options.min_agreement)
    if (options.steps > 1 or asked is not None) and options.resume:
        raise UsageError("--resume goes on with one training, and several are asked for", fix="leave --resume out")
    job = job_of(network, cut_options, images, how)
    if asked is None:
        return cut_in_steps(job, options.steps)
    pursuit = Pursuit(bound=asked, steps=options.steps, seconds=seconds_of(options.time_budget))
    return cut_within(job, pursuit, measure_of(asked, job, images, seed=options.seed))


def job_of(network: Network, cut_options: CutOptions, images: Images, how: Tuning) -> Job:
    """Put together what a cut needs: recovery is absorbing and recalibrating from the inputs, then training."""
    options, inputs, data = how.options, images.inputs, images.data
    fixed = None if network.dynamic_batch else len(network.example[0])

    def win_back(original: nn.Module, cut: Cut) -> tuple[StageResult, ...]:
        """Absorb and recalibrate, then train; training looks to the uncut network, whatever was cut."""
        stages: tuple[StageResult, ...] = ()
        if inputs is not None and options.recover:
            stages = recover(original, cut, inputs, how.told, how.clock, data=data, fixed=fixed, seed=options.seed)
        if images.training is None:
            return stages
        return tuned(network, cut, images.training, how, stages, data=data, inputs=inputs)

    def look(module: nn.Module) -> Evidence | None:
        """What criteria may see of a network: the inputs that recovery learns from as well."""
        return None if inputs is None else evidence_of(module, inputs, images.labels, fixed=fixed, seed=options.seed)

    return Job(
        module=network.module,
        example=network.example,
        options=replace(cut_options, evidence=look(network.module)),
        win_back=win_back,
        look=look,
        told=how.told,
        clock=how.clock,
        dynamic_batch=network.dynamic_batch,
    )


def trained(done: Made, network: Network, images: Images, how: Tuning) -> Made:
    """Train what was made without choosing channels, where training is asked for; `network` is the original."""
    if images.training is None:
        return done
    stages = tuned(network, done.cut, images.training, how, done.stages, data=images.data, inputs=images.inputs)
    return replace(done, stages=stages)


def measure_of(asked: Bound, job: Job, images: Images, *, seed: int) -> Measure:
    """How a bound is measured: top-1 on labelled images, agreement on any. Raises DataError where there are none."""
    data = images.data
    if isinstance(asked, MaxDrop):
        if data is None or not data.labelled:
            raise DataError(
                "--max-drop is measured on labelled images, and there are none", fix="add --data with labels"
            )
        with job.told.stage("accuracy, original", len(data)) as advance:
            original = evaluate(job.module, data, progress=advance).top1

        def top1(module: nn.Module, stages: tuple[StageResult, ...]) -> float:
            """As recovery has measured it, or now."""
            reached = final(stages)
            return (reached.accuracy if reached and reached.accuracy else evaluate(module, data)).top1

        return Measure(original=original, reach=top1, on=f"{data.name} ({len(data):,} images)")
    batches, on = _unlabelled(images, seed)
    with job.told.stage("agreement"):
        agreement(job.module, job.module, batches[0])  # a network without one answer is told of before any work

    def same(module: nn.Module, stages: tuple[StageResult, ...]) -> float:
        """The share of images with the original's answer."""
        del stages
        right = sum(agreement(module, job.module, batch) * len(batch) for batch in batches)
        return right / sum(len(batch) for batch in batches)

    return Measure(original=1.0, reach=same, on=on)


BATCH = 256


def _unlabelled(images: Images, seed: int) -> tuple[list[Tensor], str]:
    """Images to compare answers on: those of --data, else those that recovery does not learn from."""
    data, inputs = images.data, images.inputs
    if data is not None:
        items = [data.dataset[number][0] for number in range(len(data))]
        return list(torch.stack(items).split(BATCH)), f"{data.name} ({len(data):,} images)"
    aside = None if inputs is None else inputs[learned(inputs, None, seed)[1]]
    if aside is None or not len(aside):
        raise DataError("--min-agreement is measured on images, and there are none", fix="add --data or --calibration")
    return list(aside.split(BATCH)), f"{len(aside):,} calibration inputs that recovery did not see"
