"""The training that follows a cut in `compress slim`: which images, by which processes, and where its state lies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from compress.core.clock import Clock
from compress.core.errors import DataError, UsageError
from compress.core.progress import Progress
from compress.core.types import TRAINED, Network, StageResult
from compress.evaluation.data import Data
from compress.evaluation.judge import open_for
from compress.evaluation.learning import Learning, fits_memory, in_memory, learning_from
from compress.evaluation.stages import accuracy_of
from compress.evaluation.tuning import TuneOptions, inputs_aside, tune
from compress.pipeline.options import SlimOptions
from compress.recovery.training.recipe import FINETUNE
from compress.recovery.training.state import Keep, require_unfinished_is_wanted
from compress.recovery.training.team import Team
from compress.surgery.planned import Cut


def tune_options(options: SlimOptions) -> TuneOptions:
    """Return what training follows the cut. Raises UsageError where a value cannot be meant."""
    asked = TuneOptions(
        finetune=options.finetune,
        distill=options.distill,
        features=options.distill_features,
        lr=options.lr,
        batch_size=options.batch_size,
        optimizer=options.optimizer,
        precision=options.precision,
        channels_last=options.channels_last,
        seed=options.seed,
    )
    asked.recipes()
    if not asked.asked:
        return asked
    if options.resume and _several(options):
        raise UsageError("--resume goes on with one training, and several are asked for", fix="leave --resume out")
    keep = keeping(options)
    if options.resume and keep is None:
        raise UsageError("--resume needs a place for the state of the training", fix="add --save or --out")
    for step in asked.recipes():
        if keep is not None:
            require_unfinished_is_wanted(replace(keep, path=_place(keep, step)))
    return asked


def _several(options: SlimOptions) -> bool:
    """Whether every cut on the way is followed by a training."""
    return options.steps > 1 or options.max_drop is not None or options.min_agreement is not None


def silenced(options: SlimOptions) -> SlimOptions:
    """Return the options of a process that only helps: it writes and measures nothing."""
    return replace(options, out=(), save=None, plan_out=None, json=None, bench=False)


def keeping(options: SlimOptions) -> Keep | None:
    """Return where the state of the training goes: beside the first file that is written; None without one.

    None as well where several trainings are asked for, one after each cut: their states could not be told apart.
    """
    first = options.save or next(iter(options.out), None)
    if first is None or _several(options):
        return None
    return Keep(Path(f"{first}.state"), options.checkpoint_every, options.resume)


def forget(options: SlimOptions) -> None:
    """Delete the state of the training, once the results are written."""
    keep = keeping(options)
    for step in TRAINED:
        if keep is not None:
            _place(keep, step).unlink(missing_ok=True)


def _place(keep: Keep, step: str) -> Path:
    return keep.path.with_suffix(f".{step}{keep.path.suffix}")


def open_training(network: Network, options: SlimOptions, reported: Data | None) -> Data:
    """Open the images to train on: --train, else the training part of --data, else --calibration.

    Raises DataError where there are none, or where they are the images that accuracy is reported on.
    """
    if options.train is not None:
        found = open_for(network, replace(options, data=options.train), None, split="train")
        assert found is not None
        if reported is not None and found.name == reported.name:
            raise DataError(
                f"--train and --data are the same images, {found.name}: accuracy on what was seen says little",
                fix="give --train other images, best the training set",
            )
        return found
    if options.data is not None:
        found = open_for(network, options, None, split="train")
        if found is not None and reported is not None and found.name != reported.name:
            return found
    if options.calibration is not None:
        found = open_for(network, replace(options, data=options.calibration), None, split="train")
        if found is not None:
            return found
    raise DataError(
        "there are no images to train on", fix="add --train SOURCE, or --data with a set that has a training part"
    )


@dataclass(frozen=True, slots=True)
class Tuning:
    """What training was asked for, by whom it is done, and who is told."""

    options: SlimOptions
    asked: TuneOptions
    team: Team
    told: Progress
    clock: Clock


def tuned(
    network: Network,
    cut: Cut,
    training: Data,
    how: Tuning,
    stages: tuple[StageResult, ...],
    *,
    data: Data | None = None,
    inputs: Tensor | None = None,
) -> tuple[StageResult, ...]:
    """Return `stages` with those that training adds; `inputs` are the calibration inputs, where there are any."""
    if not network.dynamic_batch:
        raise UsageError("training needs a network that takes any batch size", fix="leave --finetune and --distill out")
    module, told, clock = cut.delivered.module, how.told, how.clock
    if not stages:
        with clock.stage("evaluate"):
            stages = (StageResult(name="cut", accuracy=accuracy_of(module, "cut", data, told)),)
    aside = None if inputs is None else inputs_aside(inputs, how.options.seed)
    with clock.stage("load"):
        learning = images_to_learn(training, how.asked, aside, data, told)
    return (
        *stages,
        *tune(
            network.module,
            cut,
            learning,
            how.asked,
            how.team,
            told,
            clock,
            data=data,
            aside=aside,
            keep=keeping(how.options),
        ),
    )


def images_to_learn(
    training: Data, asked: TuneOptions, aside: Tensor | None, reported: Data | None, told: Progress
) -> Learning:
    """Divide the training images; those of the report and those that recovery set aside are left out."""
    others = [] if aside is None else [aside]
    if reported is not None and fits_memory(training) and fits_memory(reported):
        others.append(in_memory(reported, told)[0])
    return learning_from(training, replace(FINETUNE, seed=asked.seed), told, reported=others)
