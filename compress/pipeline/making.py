"""From a network and what was asked for to the cut, recovered network: at once, in steps, or by a search."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from compress.core.bounds import Bound, MaxDrop, bound_of, seconds_of
from compress.core.errors import DataError, UsageError
from compress.core.types import Network, StageResult
from compress.evaluation.data import Data
from compress.evaluation.metrics import classes_of, evaluate
from compress.evaluation.stages import evidence_of, final, learned, recover
from compress.importance import Evidence
from compress.pipeline import latency as _latency  # noqa: F401 - enters how a latency is met
from compress.pipeline import sized as _sized  # noqa: F401 - enters how a file size is met
from compress.pipeline.affordable import Measure, Pursuit, cut_within
from compress.pipeline.job import Job, Made
from compress.pipeline.shortening import Gone
from compress.pipeline.steps import cut_in_steps
from compress.pipeline.tuning import Tuning, tuned
from compress.surgery.planned import Cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """What the network is judged on, learns from without labels (`labels` for criteria only), and is trained on."""

    data: Data | None = None
    inputs: Tensor | None = None
    labels: Tensor | None = None
    training: Data | None = None


def made(gone: Gone, images: Images, how: Tuning) -> Made:
    """Cut what is left of the network and win back what all of it gave, as the options say.

    Raises what cutting, recovery and training raise.
    """
    options = how.options
    asked = bound_of(options.max_drop, options.min_agreement)
    gone = gone.of_the_whole() if asked is None else gone
    job = job_of(gone, images, how)
    if gone.alone:
        if options.steps > 1:
            raise UsageError("--steps approaches a budget, and none is given", fix="add one, or leave --steps out")
        cut = gone.whole()
        done = Made(cut, job.win_back(job.module, cut))
    elif asked is None:
        done = cut_in_steps(job, options.steps)
    else:
        pursuit = Pursuit(bound=asked, steps=options.steps, seconds=seconds_of(options.time_budget))
        done = cut_within(job, pursuit, measure_of(asked, gone.full, images, how))
    return replace(done, cut=gone.counted(done.cut))


def job_of(gone: Gone, images: Images, how: Tuning) -> Job:
    """Put together what a cut needs: recovery is absorbing and recalibrating from the inputs, then training."""
    options, inputs, data, network = how.options, images.inputs, images.data, gone.network
    fixed = None if network.dynamic_batch else len(network.example[0])

    def win_back(original: nn.Module, cut: Cut) -> tuple[StageResult, ...]:
        """Absorb and recalibrate, then train; training looks to the uncut network, whatever was cut.

        The first cut is won back towards the network with all its blocks, others layer by layer towards what they
        found; answers are compared with the uncut network's in any case.
        """
        stages: tuple[StageResult, ...] = ()
        first = original is network.module
        if inputs is not None and options.recover:
            stages = recover(
                gone.full.module if first else original,
                cut,
                inputs,
                how.told,
                how.clock,
                data=data,
                fixed=cut.delivered.batch if fixed is None else fixed,
                seed=options.seed,
                shortened=first and gone.result is not None,
                wanted=gone.full.module,
            )
        if images.training is None:
            return stages
        return tuned(gone.full, cut, images.training, how, stages, data=data, inputs=inputs)

    def look(module: nn.Module) -> Evidence | None:
        """What criteria may see of a network: the inputs that recovery learns from as well."""
        return None if inputs is None else evidence_of(module, inputs, images.labels, fixed=fixed, seed=options.seed)

    return Job(
        module=network.module,
        example=network.example,
        options=replace(gone.options, evidence=look(network.module)),
        win_back=win_back,
        look=look,
        told=how.told,
        clock=how.clock,
        dynamic_batch=network.dynamic_batch,
    )


def as_delivered(network: Network, cut: Cut) -> Network:
    """The network with the batch sizes that both it and what was cut out of it take."""
    return network if cut.delivered.batch is None else replace(network, dynamic_batch=False)


def measure_of(asked: Bound, network: Network, images: Images, how: Tuning) -> Measure:
    """How a bound is measured: top-1 on labelled images, agreement on any. Raises DataError where there are none."""
    data, whole, told = images.data, network.module, how.told
    rows = None if network.dynamic_batch else len(network.example[0])
    if isinstance(asked, MaxDrop):
        if data is None or not data.labelled:
            raise DataError(
                "--max-drop is measured on labelled images, and there are none", fix="add --data with labels"
            )
        with told.stage("accuracy, original", len(data)) as advance:
            original = evaluate(whole, data, rows=rows, progress=advance).top1

        def top1(module: nn.Module, stages: tuple[StageResult, ...]) -> float:
            """As recovery has measured it, or now."""
            reached = final(stages)
            return (reached.accuracy if reached and reached.accuracy else evaluate(module, data, rows=rows)).top1

        return Measure(original=original, reach=top1, on=f"{data.name} ({len(data):,} images)")
    batches, on = _unlabelled(images, how.options.seed, rows)
    with told.stage("answers of the original"):
        wanted = classes_of(whole, batches(), rows=rows)

    def same(module: nn.Module, stages: tuple[StageResult, ...]) -> float:
        """The share of images with the original's answer."""
        del stages
        return float((classes_of(module, batches(), rows=rows) == wanted).double().mean())

    return Measure(original=1.0, reach=same, on=on)


BATCH = 256


def _unlabelled(images: Images, seed: int, fixed: int | None) -> tuple[Callable[[], Iterable[Tensor]], str]:
    """Images to compare answers on, in batches: those of --data, else those that recovery does not learn from."""
    data, inputs = images.data, images.inputs
    if data is not None:
        loader = DataLoader(Subset(data.dataset, range(len(data))), batch_size=BATCH)
        return lambda: (batch for batch, _ in loader), f"{data.name} ({len(data):,} images)"
    aside = None if inputs is None else inputs[learned(inputs, fixed, seed)[1]]
    if aside is None or not len(aside):
        raise DataError("--min-agreement is measured on images, and there are none", fix="add --data or --calibration")
    return lambda: aside.split(BATCH), f"{len(aside):,} calibration inputs that recovery did not see"
