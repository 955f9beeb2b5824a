"""Learn from labels: cross-entropy, with label smoothing where the recipe says so."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.core.errors import DataError
from compress.core.progress import Progress
from compress.graph.trace import tensors_in
from compress.recovery.training.judging import Judge
from compress.recovery.training.loop import Loss, Task, Trained, train
from compress.recovery.training.recipe import Recipe
from compress.recovery.training.run import Epoch
from compress.recovery.training.samples import Samples
from compress.recovery.training.state import Keep
from compress.recovery.training.team import Team


def finetune(
    module: nn.Module,
    samples: Samples,
    held: Samples | None,
    recipe: Recipe,
    team: Team,
    told: Progress,
    *,
    keep: Keep | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Trained:
    """Train `module`, whose output is (N, classes) logits, in place on labelled `samples`.

    The best epoch by accuracy on `held` is kept, or the first weights where no epoch is better; without `held`
    the last. Raises DataError where there are no labels or they do not fit the outputs; else as `training.loop.train`.
    """
    judge = None
    for part in (samples, held):
        if part is not None:
            require_labels(module, part, team)
    if held is not None and held.labels is not None:
        judge = Judge(held.inputs, marks_by(held.labels))
    task = Task(
        name="finetune",
        module=module,
        samples=samples,
        loss=cross_entropy(recipe.smoothing),
        judge=judge,
        incumbent=judge is not None,
    )
    return train(task, recipe, team, told, keep=keep, on_epoch=on_epoch)


def cross_entropy(smoothing: float) -> Loss:
    """Return the mean cross-entropy in nats of a module's first output, (N, classes), with label smoothing.

    Further outputs (auxiliary heads while training) are not learned from.
    """

    def loss(module: nn.Module, inputs: Tensor, labels: Tensor | None) -> Tensor:
        """Run the module and compare with the labels."""
        assert labels is not None
        return F.cross_entropy(tensors_in(module(inputs))[0].float(), labels, label_smoothing=smoothing)

    return loss


def marks_by(labels: Tensor) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return what counts the outputs whose largest is the label, and sums their cross-entropy."""

    def marks(output: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Compare a batch of outputs with its labels."""
        wanted = labels[numbers].to(output.device)
        return (output.argmax(1) == wanted).sum(), F.cross_entropy(output.float(), wanted, reduction="sum")

    return marks


def require_labels(module: nn.Module, samples: Samples, team: Team) -> None:
    """Raise DataError where there are no labels, or where the module has no (N, classes) outputs for them."""
    if samples.labels is None:
        raise DataError(
            "the images to learn from have no labels", fix="give labelled ones, or --distill, which needs none"
        )
    from compress.graph.modules import quiet_module, set_mode

    with quiet_module(module), torch.no_grad():
        set_mode(module, train=False)
        some = next(samples.inputs.batches([torch.arange(min(2, len(samples)))]))
        home = next((p.device for p in module.parameters()), team.device)
        output = module(some.to(home))
    if not isinstance(output, Tensor) or output.ndim != 2:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise DataError(
            f"the network gives {shape}, not one tensor (inputs, classes)", fix="--distill learns from any outputs"
        )
    low, high = int(samples.labels.min()), int(samples.labels.max())
    if low < 0 or high >= output.shape[1]:
        raise DataError(
            f"there is a label {high if low >= 0 else low}, but the network has {output.shape[1]} outputs",
            fix="give the data set that the network was trained for",
        )
