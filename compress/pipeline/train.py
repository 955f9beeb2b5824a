"""Train a network from scratch, plain or sparse: build, read, train, test, write."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compress.checkpoint import load as read_checkpoint
from compress.checkpoint.architecture import parse
from compress.checkpoint.inputs import image_channels
from compress.core.errors import CheckpointError, DataError, UsageError, first_line
from compress.core.files import written_whole
from compress.core.progress import Progress, Silent
from compress.core.types import Accuracy, Preprocessing
from compress.evaluation.data import Data, look, open_data
from compress.evaluation.learning import Learning, as_data, divided, fits_memory, in_memory, learning_from, mean_and_std
from compress.evaluation.metrics import evaluate
from compress.graph.analyse import analyse
from compress.graph.modules import quiet_module, set_mode
from compress.measure.machine import this_machine
from compress.recovery.finetune import cross_entropy, marks_by, require_labels
from compress.recovery.training.judging import Judge
from compress.recovery.training.lasso import channels_of, pull_groups, strength
from compress.recovery.training.loop import Pull, Task, Trained, train
from compress.recovery.training.recipe import RECIPES, Recipe, Regularizer
from compress.recovery.training.run import Epoch
from compress.recovery.training.sparsity import pull, scales, start_scales
from compress.recovery.training.state import Keep, require_unfinished_is_wanted
from compress.recovery.training.team import Team, joined
from compress.report.assemble import versions
from compress.report.training import TrainReport, scales_in


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """Everything that `compress train` can be told; `changes` are fields of the recipe that replace the named one's."""

    arch: str
    data: str
    out: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    test: str | None = None
    start: Path | None = None
    recipe: str = "plain"
    changes: Mapping[str, Any] = field(default_factory=dict)
    input_shape: tuple[int, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    download: bool = False
    resume: bool = False
    checkpoint_every: int = 500
    device: str | None = None


@dataclass(frozen=True, slots=True)
class Built:
    """A network to train, the options that its factory took, and what has to be said of it."""

    module: nn.Module
    options: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def run_train(
    options: TrainOptions, progress: Progress | None = None, on_epoch: Callable[[Epoch], None] | None = None
) -> TrainReport:
    """Do what `compress train` does, and return every figure. Raises CompressError subclasses; see each step."""
    recipe = RECIPES[options.recipe].with_values(**options.changes)
    keep = Keep(Path(f"{options.out}.state"), options.checkpoint_every, options.resume)
    require_unfinished_is_wanted(keep)
    told = progress or Silent()
    with joined(options.device) as team:
        seen = look(options.data, download=options.download)
        shape = options.input_shape or (1, *seen.shape)
        torch.manual_seed(recipe.seed)
        built = _built(options, shape, seen.classes)
        shape = (1, image_channels(built.module) or shape[1], *shape[2:])
        _require_that_it_runs(built.module, shape, options)
        _prepare_scales(built.module, recipe, started=options.start is not None)
        learning, steps, tested = _images(options, shape, recipe, told)
        require_labels(built.module, learning.samples, team)
        task = _task(built.module, learning, recipe, shape)
        done = train(task, recipe, team, told, keep=keep, on_epoch=on_epoch)
        judged = _tested(built.module, tested, learning, team, told)
        report = _report(options, recipe, built, learning, done, judged)
        if team.main:
            _write(options, built, shape, steps, report)
            keep.path.unlink(missing_ok=True)
    return report


def _built(options: TrainOptions, shape: tuple[int, ...], classes: int | None) -> Built:
    """Build the network, with as many classes and input channels as the data has where its factory takes these."""
    if options.start is not None:
        network = read_checkpoint(options.start, arch=options.arch, arch_options=options.options, input_shape=shape)
        if network.plan is not None:
            raise CheckpointError(
                f"{options.start} is a cut network, which compress slim trains on",
                fix="compress slim with --finetune, or build its widths anew with --option",
            )
        return Built(network.module, network.arch_options, (f"starts from the weights of {options.start}",))
    counted = {"num_classes": classes, "in_channels": shape[1]}
    counted = {name: value for name, value in counted.items() if value is not None and name not in options.options}
    offers: list[dict[str, Any]] = [counted, *({name: value} for name, value in counted.items()), {}]
    for number, offer in enumerate(offers):
        full = {**offer, **options.options}
        try:
            module = parse(options.arch).module(full)
        except CheckpointError:
            if number + 1 == len(offers):
                raise
        else:
            taken = ", ".join(f"{name}={value}" for name, value in offer.items())
            return Built(module, full, (f"{taken} (from the data)",) if taken else ())
    raise AssertionError("the last offer returns or raises")


def _require_that_it_runs(module: nn.Module, shape: tuple[int, ...], options: TrainOptions) -> None:
    """Refuse images that the network cannot read, before any are loaded; DataError says their shape."""
    try:
        with quiet_module(module), torch.no_grad():
            set_mode(module, train=False)
            module(torch.zeros((2, *shape[1:])))
    except (RuntimeError, ValueError, IndexError) as error:
        size = " x ".join(map(str, shape[1:]))
        raise DataError(
            f"{options.arch} cannot run on images of {size} (channels, height, width) from {options.data}: "
            f"{first_line(error)}",
            fix="give --input-shape 1,C,H,W of a size that it reads, or other images",
        ) from error


def _prepare_scales(module: nn.Module, recipe: Recipe, *, started: bool) -> None:
    """Set the first scales, and refuse a penalty that has nothing to pull."""
    if recipe.scale is not None and not started:
        start_scales(module, recipe.scale)
    on_scales = recipe.sparsity > 0 and recipe.regularizer is Regularizer.BN
    if on_scales:
        scales(module)
    elif recipe.shifts:
        raise UsageError("--shifts belongs to --sparsity with --regularizer bn", fix="add --sparsity 1e-4")


def _images(
    options: TrainOptions, shape: tuple[int, ...], recipe: Recipe, told: Progress
) -> tuple[Learning, Preprocessing | None, Data | None]:
    """Open training and test images (None: there are none), normalised by what the training images say."""
    size = (shape[2], shape[3]) if len(shape) == 4 else None
    how: dict[str, Any] = {"channels": shape[1], "size": size, "download": options.download}
    plain = open_data(options.data, preprocessing=None, split="train", **how)
    inputs, labels = in_memory(plain, told) if fits_memory(plain) else (None, None)
    steps = None
    if plain.preprocessing is not None:  # None: floats, which are used as they are
        given = None if options.mean is None or options.std is None else (options.mean, options.std)
        mean, std = given or mean_and_std(plain, inputs)
        source = "the training images" if given is None else "--mean, --std"
        steps = Preprocessing(mean=mean, std=std, source=source)
    tested: Data | None = open_data(options.test or options.data, preprocessing=steps, split="test", **how)
    if tested is not None and tested.name == plain.name:
        if options.test is not None:
            raise UsageError(
                f"--test and --data are the same images, {plain.name}: accuracy on what was seen says little",
                fix="give --test other images",
            )
        tested = None
    reported = [] if tested is None or not fits_memory(tested) or inputs is None else [in_memory(tested, told)[0]]
    if inputs is None:
        return (
            learning_from(open_data(options.data, preprocessing=steps, split="train", **how), recipe, told),
            steps,
            tested,
        )
    fill = None
    if steps is not None:
        centre, spread = torch.tensor(steps.mean), torch.tensor(steps.std)
        inputs.sub_(centre.view(-1, 1, 1)).div_(spread.view(-1, 1, 1))
        fill = -centre / spread
    learning = divided(inputs, labels, recipe, plain.name, reported=reported, fill=fill)
    return learning, steps, tested


def _task(module: nn.Module, learning: Learning, recipe: Recipe, shape: tuple[int, ...]) -> Task:
    """Cross-entropy with the recipe's penalty; the best epoch is found on the held-out images, where there are any."""
    held = learning.held
    judge = Judge(held.inputs, marks_by(held.labels)) if held is not None and held.labels is not None else None
    return Task(
        name="train",
        module=module,
        samples=learning.samples,
        loss=cross_entropy(recipe.smoothing),
        judge=judge,
        pull=_penalty(recipe, shape) if recipe.sparsity > 0 else None,
    )


def _penalty(recipe: Recipe, shape: tuple[int, ...]) -> Callable[[nn.Module], Pull]:
    """Return what makes, for a module, the function that adds the penalty's gradient."""

    def on_scales(module: nn.Module) -> Pull:
        """Network slimming's sub-gradient, the same at every step."""
        pulled = scales(module, shifts=recipe.shifts)
        return lambda _step, _steps: pull(pulled, recipe.sparsity)

    def on_channels(module: nn.Module) -> Pull:
        """Group lasso, growing."""
        device = next(module.parameters()).device
        pulled = channels_of(analyse(module, (torch.zeros((2, *shape[1:]), device=device),)), module)
        return lambda step, steps: pull_groups(pulled, strength(recipe.sparsity, step, steps))

    return on_scales if recipe.regularizer is Regularizer.BN else on_channels


def _tested(
    module: nn.Module, tested: Data | None, learning: Learning, team: Team, told: Progress
) -> tuple[Accuracy | None, str | None, tuple[str, ...]]:
    """Return the accuracy on the test images, else on the held-out ones, which they were, and the classes' names."""
    if not team.main:
        return None, None, ()
    if tested is not None and tested.labelled:
        with told.stage("test", len(tested)) as advance:
            on = f"{tested.name} ({len(tested):,} images)"
            return evaluate(module, tested, progress=advance), on, tested.class_names
    held = learning.held
    if held is None or held.labels is None:
        return None, None, ()
    on = f"{learning.source}: {len(held):,} held-out images, on which the epoch was chosen"
    return evaluate(module, as_data(held, learning.source)), on, ()


def _report(
    options: TrainOptions,
    recipe: Recipe,
    built: Built,
    learning: Learning,
    done: Trained,
    judged: tuple[Accuracy | None, str | None, tuple[str, ...]],
) -> TrainReport:
    accuracy, on, names = judged
    return TrainReport(
        arch=options.arch,
        arch_options=dict(built.options),
        parameters=sum(p.numel() for p in built.module.parameters()),
        recipe_name=options.recipe,
        recipe=asdict(recipe),
        trained_on=str(learning),
        done=done,
        accuracy=accuracy,
        accuracy_on=on,
        class_names=names,
        scales=scales_in(built.module),
        out=str(options.out),
        machine=asdict(this_machine()),
        versions=versions(),
        command=shlex.join(["compress", *sys.argv[1:]]),
        notes=(*built.notes, *learning.notes),
    )


def _write(
    options: TrainOptions, built: Built, shape: tuple[int, ...], steps: Preprocessing | None, report: TrainReport
) -> None:
    """Write the checkpoint that every command of compress reads: plain values and tensors."""
    top1 = None if report.accuracy is None else report.accuracy.top1
    data = {
        "state_dict": {name: tensor.detach().cpu().contiguous() for name, tensor in built.module.state_dict().items()},
        "arch": options.arch,
        "arch_options": dict(built.options),
        "input_shape": list(shape),
        **({"mean": list(steps.mean), "std": list(steps.std)} if steps is not None else {}),
        "training": {"recipe": {k: _plain(v) for k, v in report.recipe.items()}, "data": options.data, "top1": top1},
    }
    with written_whole(options.out) as temporary:
        torch.save(data, temporary)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, str) else value
