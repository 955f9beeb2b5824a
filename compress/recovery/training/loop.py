"""The training loop: one for fine-tuning, distillation and training from scratch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compress.core.errors import TrainingError, UsageError, first_line
from compress.core.progress import Advance, Progress
from compress.graph.modules import quiet_module, set_mode
from compress.recovery.training.augment import changed, drawn
from compress.recovery.training.average import follow, started
from compress.recovery.training.interrupts import Asked, deferred
from compress.recovery.training.judging import Judge, Score
from compress.recovery.training.lent import laid, left_as_it_was, lent
from compress.recovery.training.optimizers import optimizer_for
from compress.recovery.training.precision import resolved
from compress.recovery.training.recipe import Recipe
from compress.recovery.training.run import Epoch, Run, as_data, copied, random_state, take_up
from compress.recovery.training.samples import Samples, order_of
from compress.recovery.training.schedule import rate
from compress.recovery.training.state import Keep, fingerprint, read_state, write_state
from compress.recovery.training.syncnorm import synchronised
from compress.recovery.training.team import Team

LOOK_EVERY = 20  # steps after which a loss that is not finite is noticed

# module, inputs (N, *), labels int64 (N,) or None -> mean loss, a scalar
Loss = Callable[[nn.Module, Tensor, Tensor | None], Tensor]
# step, number of steps: changes the gradients
Pull = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is learned, by what and from what.

    `judge` decides which epoch is kept (None: the last). `incumbent`: the weights that the module comes with take part,
    so that training which does not help changes nothing. `pull` makes, for the module, what changes the gradients.
    """

    name: str
    module: nn.Module
    samples: Samples
    loss: Loss
    judge: Judge | None = None
    incumbent: bool = False
    pull: Callable[[nn.Module], Pull] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What came of a training. `before` and `best` are held-out scores; `kept` is 0 where the first weights were best.

    `steps` were taken in all, `resumed` of them by earlier runs. `precision` is what the network computed in.
    """

    epochs: tuple[Epoch, ...]
    before: Score | None
    best: Score | None
    kept: int
    steps: int
    resumed: int
    precision: str
    processes: int
    stopped_early: bool
    seconds: float


def train(
    task: Task,
    recipe: Recipe,
    team: Team,
    told: Progress,
    *,
    keep: Keep | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Trained:
    """Train `task.module` in place, and leave it with the best epoch's weights, in the mode and on the device it had.

    The same recipe, images and first weights give the same result, also where the run was killed and taken up from
    `keep`, and, up to rounding, for any number of processes. The state that lies at `keep` afterwards is the
    caller's to delete, once the result is written. PyTorch's random numbers are left as they were. Raises TrainingError
    where the loss is not finite, KeyboardInterrupt, after saving, on Ctrl-C.
    """
    begun = time.perf_counter()
    size = batch_size(recipe, len(task.samples), team)
    each = len(task.samples) // size
    total = recipe.epochs * each
    fits = fingerprint(recipe, task.module, len(task.samples), task.name)
    with ExitStack() as stack:
        stack.enter_context(left_as_it_was(task.module, team, channels_last=recipe.channels_last))
        stack.enter_context(synchronised(task.module, team))
        if recipe.channels_last:
            _require_that_it_runs(task, team)
        run = _begun(task, recipe, team, fits, keep)
        dtype = resolved(recipe.precision, team.device)
        loop = _Loop(task, recipe, team, run, dtype, each, size, fits, keep)
        advance = stack.enter_context(told.stage(task.name, total))
        asked = stack.enter_context(deferred())
        advance(run.step, total)
        while run.step < total and not _patience_lost(run, recipe):
            loop.epoch(advance, asked)
            if on_epoch is not None:
                on_epoch(run.epochs[-1])
        _settle(task.module, run, task.judge is not None)
        for parameter in task.module.parameters():
            parameter.grad = None
    return Trained(
        epochs=tuple(run.epochs),
        before=run.before,
        best=run.best,
        kept=run.kept,
        steps=run.step,
        resumed=run.resumed,
        precision=str(dtype).removeprefix("torch."),
        processes=team.size,
        stopped_early=run.step < total,
        seconds=time.perf_counter() - begun,
    )


def batch_size(recipe: Recipe, inputs: int, team: Team) -> int:
    """Return how many inputs a step takes: the recipe's, or all where there are fewer; a multiple of the processes.

    Raises UsageError where that is impossible.
    """
    if recipe.batch_size % team.size:
        raise UsageError(
            f"a batch of {recipe.batch_size} cannot be shared evenly by {team.size} processes",
            fix=f"give a --batch-size that is a multiple of {team.size}",
        )
    size = min(recipe.batch_size, inputs // team.size * team.size)
    if size < 2 * team.size:
        raise UsageError(
            f"{inputs} inputs to learn from are too few for {team.size} process{'es' if team.size > 1 else ''}",
            fix="give at least two for each",
        )
    return size


@dataclass(frozen=True, slots=True)
class _Loop:
    """One training with everything that its steps need."""

    task: Task
    recipe: Recipe
    team: Team
    run: Run
    dtype: torch.dtype
    each: int
    size: int
    fits: dict[str, Any]
    keep: Keep | None

    def epoch(self, advance: Advance, asked: Asked) -> None:
        """Take the steps of an epoch that are left of it, judge it, and save."""
        run, task, team = self.run, self.task, self.team
        number, first = divmod(run.step, self.each)
        order = order_of(len(task.samples), self.size, self.recipe.seed, number)[first:]
        mine = [numbers[team.share(self.size)] for numbers in order]
        pull = None if task.pull is None else task.pull(task.module)
        trainable = [p for p in task.module.parameters() if p.requires_grad]
        set_mode(task.module, train=True)
        for numbers, inputs in zip(mine, task.samples.inputs.batches(mine), strict=True):
            stop = self._step(inputs, numbers, pull, trainable, asked.stop)
            advance(run.step, self.recipe.epochs * self.each)
            if run.step % LOOK_EVERY == 0:
                self._require_finite()
            if stop:
                self._interrupted()
            if self.keep is not None and run.step % self.keep.every == 0 and run.step % self.each:
                self._save()
        self._require_finite()
        self._judged(number)
        if self.keep is not None:
            self._save()

    def _step(
        self, inputs: Tensor, numbers: Tensor, pull: Pull | None, trainable: list[nn.Parameter], stop: bool
    ) -> bool:
        """One step of the optimiser; return whether a process wants to stop."""
        run, task, recipe, team = self.run, self.task, self.recipe, self.team
        lr = rate(recipe, run.step, self.each)
        for group in run.optimizer.param_groups:
            group["lr"] = lr
        shifts = drawn(self.size, recipe.pad, recipe.flip, recipe.seed, run.step).part(team.share(self.size))
        x = changed(inputs.to(team.device), shifts, recipe.pad, task.samples.fill)
        if recipe.channels_last and x.ndim == 4:
            x = laid(x, torch.channels_last)
        labels = None if task.samples.labels is None else task.samples.labels[numbers].to(team.device)
        with torch.autocast(team.device.type, self.dtype, enabled=self.dtype != torch.float32):
            loss = task.loss(task.module, x, labels)
        run.optimizer.zero_grad(set_to_none=True)
        run.scaler.scale(loss).backward()
        stop = team.average_gradients(trainable, stop)
        run.scaler.unscale_(run.optimizer)
        if pull is not None:
            pull(run.step, recipe.epochs * self.each)
        if recipe.clip > 0:
            nn.utils.clip_grad_norm_(trainable, recipe.clip)
        run.scaler.step(run.optimizer)
        run.scaler.update()
        if run.average is not None:
            follow(run.average, task.module, recipe.ema, run.step)
        run.loss += float(loss.detach())
        run.step += 1
        return stop

    def _require_finite(self) -> None:
        if not math.isfinite(self.run.loss):
            raise TrainingError(
                f"{self.task.name}: the loss is no longer a finite number at step {self.run.step}",
                fix="give a smaller --lr, or --precision float32",
            )

    def _judged(self, number: int) -> None:
        """Close epoch `number` (from 0): score it, and remember its weights if they are the best so far."""
        run, task = self.run, self.task
        mean = self.team.summed(torch.tensor(run.loss / self.each, device=self.team.device, dtype=torch.float64))
        score = None
        if task.judge is not None:
            with lent(task.module, run.average):
                score = task.judge(task.module, self.team)
            if score.beats(run.best):
                state = task.module.state_dict() if run.average is None else run.average
                run.best, run.kept, run.best_state = score, number + 1, copied(state)
        lr = rate(self.recipe, run.step - 1, self.each)
        run.epochs.append(Epoch(number=number + 1, loss=float(mean) / self.team.size, score=score, lr=lr))
        run.loss = 0.0

    def _save(self) -> None:
        if self.keep is None:
            return
        generators = self.team.gathered(random_state())
        if self.team.main:
            write_state(self.keep.path, self.fits, as_data(self.task.module, self.run, generators))

    def _interrupted(self) -> None:
        self._save()
        at = f"step {self.run.step} of {self.recipe.epochs * self.each} of {self.task.name}"
        if self.keep is None:
            raise KeyboardInterrupt(f"at {at}; nothing was saved")
        raise KeyboardInterrupt(f"at {at}; its state is in {self.keep.path}, --resume goes on from there")


def _require_that_it_runs(task: Task, team: Team) -> None:
    """Raise UsageError where the network's code does not take maps with the channels innermost (`view` of a map)."""
    some = next(task.samples.inputs.batches([torch.arange(2)])).to(team.device)
    some = laid(some, torch.channels_last) if some.ndim == 4 else some
    set_mode(task.module, train=False)
    try:
        with torch.no_grad(), quiet_module(task.module):
            task.module(some)
    except RuntimeError as error:
        raise UsageError(
            f"the network does not run with its channels last: {first_line(error)}", fix="leave --channels-last out"
        ) from error


def _begun(task: Task, recipe: Recipe, team: Team, fits: dict[str, Any], keep: Keep | None) -> Run:
    """Build the optimiser from the parameters that are there now, or take up a saved state."""
    torch.manual_seed(recipe.seed + team.rank)
    team.alike(task.module)
    half = resolved(recipe.precision, team.device) == torch.float16
    scaler = torch.amp.GradScaler(team.device.type, enabled=half)
    run = Run(optimizer_for(task.module, recipe), scaler, started(task.module) if recipe.ema > 0 else None)
    if keep is not None and keep.resume and keep.path.is_file():
        take_up(task.module, run, read_state(keep.path, fits), team)
    elif task.judge is not None and task.incumbent:
        run.before = run.best = task.judge(task.module, team)
        run.best_state = copied(task.module.state_dict())
    return run


def _patience_lost(run: Run, recipe: Recipe) -> bool:
    """Whether so many epochs have passed since the best one that no better one is expected."""
    return 0 < recipe.patience <= len(run.epochs) - run.kept and run.best is not None


def _settle(module: nn.Module, run: Run, judged: bool) -> None:
    """Put the weights that are kept into the module: the best ones, or the last (average) where nobody judged."""
    final = run.best_state if judged and run.best_state is not None else run.average
    if final is not None:
        module.load_state_dict(final)
