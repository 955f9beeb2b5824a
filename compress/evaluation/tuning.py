"""Fine-tuning and distillation after a cut, as steps of the recovery: each is kept only where it helps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from compress.core.clock import Clock
from compress.core.errors import DataError, TrainingError
from compress.core.progress import Progress
from compress.core.types import StageResult
from compress.evaluation.data import Data
from compress.evaluation.learning import Learning
from compress.evaluation.stages import accuracy_of, learned, likeness
from compress.graph.modules import quiet_module, set_mode, state_of, walk
from compress.recovery.distill import distill
from compress.recovery.features import Feature, fitting, stage_features
from compress.recovery.finetune import finetune
from compress.recovery.training.loop import Trained
from compress.recovery.training.recipe import DISTILL, FINETUNE, Optimizer, Precision, Recipe
from compress.recovery.training.state import Keep
from compress.recovery.training.team import Team
from compress.surgery.planned import Cut


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneOptions:
    """What training follows a cut. Epochs of 0 are none; None takes the recipe's own value."""

    finetune: int = 0
    distill: int = 0
    features: bool = False
    lr: float | None = None
    batch_size: int | None = None
    optimizer: Optimizer | None = None
    precision: Precision = Precision.AUTO
    channels_last: bool = False
    seed: int = 0

    @property
    def asked(self) -> bool:
        """Whether any training is asked for."""
        return self.finetune > 0 or self.distill > 0

    def recipes(self) -> dict[str, Recipe]:
        """Return the recipe of each step by its name, in order. Raises UsageError where a value cannot be meant."""
        bases = {"distilled": (self.distill, DISTILL), "tuned": (self.finetune, FINETUNE)}
        return {name: self._recipe(base, epochs) for name, (epochs, base) in bases.items() if epochs > 0}

    def _recipe(self, base: Recipe, epochs: int) -> Recipe:
        lr = self.lr
        if lr is None and self.optimizer in (Optimizer.ADAM, Optimizer.ADAMW):
            lr = 1e-3  # the recipe's rate is one for SGD
        given = {"lr": lr, "batch_size": self.batch_size, "optimizer": self.optimizer, "precision": self.precision}
        return base.with_values(epochs=epochs, seed=self.seed, channels_last=self.channels_last, **given)


def tune(
    original: nn.Module,
    cut: Cut,
    learning: Learning,
    options: TuneOptions,
    team: Team,
    told: Progress,
    clock: Clock,
    *,
    data: Data | None = None,
    aside: Tensor | None = None,
    keep: Keep | None = None,
) -> tuple[StageResult, ...]:
    """Distil and fine-tune the cut network in place, as far as asked for; return each step with what it reached.

    Accuracy is on `data` where that has labels; agreement and distance are on `aside`, inputs never learned from. A
    step whose best epoch is no better on the held-out images, or that diverges, is taken back. Raises DataError where
    fine-tuning has no labels, KeyboardInterrupt, after saving, on Ctrl-C.
    """
    module = cut.delivered.module
    if learning.held is None:
        raise DataError(
            f"{learning.source}: {len(learning.samples)} images are too few to hold some out, on which to judge",
            fix="give at least ten",
        )
    stages = []
    for name, recipe in options.recipes().items():
        before = {key: tensor.detach().clone() for key, tensor in module.state_dict().items()}
        here = None if keep is None else replace(keep, path=keep.path.with_suffix(f".{name}{keep.path.suffix}"))
        try:
            with clock.stage(name):
                done, note = _trained(name, recipe, original, cut, learning, options, team, told, here)
        except TrainingError as error:
            module.load_state_dict(before)
            stages.append(StageResult(name=name, kept=False, note=f"taken back: {error.what}"))
            continue
        reached = StageResult(
            name=name,
            held_out=None if done.best is None else done.best.right,
            loss=None if done.best is None else done.best.loss,
            seconds=done.seconds,
            note="; ".join([described(done, recipe, learning, what=name), *([note] if note else [])]),
            kept=done.kept > 0,
        )
        if reached.kept:
            with clock.stage("evaluate"):
                same, distance = likeness(original, module, aside)
                accuracy = accuracy_of(module, name, data, told)
            reached = replace(reached, accuracy=accuracy, agreement=same, distance=distance)
        stages.append(reached)
    return tuple(stages)


def _trained(  # noqa: PLR0917 - the parts of one call, passed on
    name: str,
    recipe: Recipe,
    original: nn.Module,
    cut: Cut,
    learning: Learning,
    options: TuneOptions,
    team: Team,
    told: Progress,
    keep: Keep | None,
) -> tuple[Trained, str]:
    """Do one step; return what came of it and what has to be said."""
    module = cut.delivered.module
    if name == "tuned":
        return finetune(module, learning.samples, learning.held, recipe, team, told, keep=keep), ""
    features, note = _features(original, cut, learning, options)
    parts = (original, module, learning.samples, learning.held, recipe, team, told)
    return distill(*parts, features=features, keep=keep), note


def described(done: Trained, recipe: Recipe, learning: Learning, *, what: str) -> str:
    """Say in one line what a training did."""
    measure = "held-out agreement" if what == "distilled" else "held-out accuracy"
    many = f", {done.processes} processes" if done.processes > 1 else ""
    how = f"{len(done.epochs)} of {recipe.epochs} epochs, {recipe.optimizer}, lr {recipe.lr:g}, {done.precision}{many}"
    text = f"{how}; {learning}"
    tried = max((e.score for e in done.epochs if e.score), key=lambda s: (s.right, -s.loss), default=None)
    best = done.best if done.kept else tried
    if done.before is not None and best is not None:
        text += f"; {measure} {done.before.right:.2%} -> {best.right:.2%}"
        text += f", loss {done.before.loss:.4f} -> {best.loss:.4f}"
    return text + (f"; epoch {done.kept} is kept" if done.kept else "; taken back: no epoch was better")


def _features(
    original: nn.Module, cut: Cut, learning: Learning, options: TuneOptions
) -> tuple[tuple[Feature, ...], str]:
    """The stages to match, and what to say of them."""
    if not options.features:
        return (), ""
    if cut.chosen.plan.submodule is not None:
        return (), "features not matched: only a submodule was cut"
    if any(cut.analysis.shapes.get(name) != tuple(t.shape) for name, t in state_of(walk(original)).items()):
        return (), "features not matched: the network was cut in several steps, or blocks left it"
    module = cut.delivered.module
    some = next(learning.samples.inputs.batches([torch.arange(min(2, len(learning.samples)))]))
    with quiet_module(original), quiet_module(module):
        found = stage_features(cut.analysis, cut.dead, original, module)
        set_mode(original, train=False)
        set_mode(module, train=False)
        found = fitting(found, original, module, some)
    if not found:
        return (), "features not matched: the cut network has none of the original's modules (it is a rewritten graph)"
    return found, f"features matched at {', '.join(f.path for f in found)}"


def inputs_aside(inputs: Tensor, seed: int, fixed: int | None = None) -> Tensor | None:
    """Return the calibration inputs that recovery sets aside: what is learned from must not hold them."""
    _, numbers = learned(inputs, fixed, seed)
    return inputs[numbers] if len(numbers) else None
