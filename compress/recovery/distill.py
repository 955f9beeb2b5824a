"""Learn from the original instead of labels: the cut network is trained to give the original's outputs.

(N, classes) outputs:  T^2 KL(softmax(original / T) || softmax(cut / T)), nats     (Hinton et al., arXiv:1503.02531)
other outputs:         sum |cut - original|^2 / sum |original|^2
features, by option:   the same quotient for the output of every stage               (Romero et al., arXiv:1412.6550)
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.core.progress import Progress
from compress.graph.modules import set_mode
from compress.graph.trace import tensors_in
from compress.recovery.features import Feature, watching
from compress.recovery.training.judging import BATCH, Judge
from compress.recovery.training.lent import left_as_it_was
from compress.recovery.training.loop import Task, Trained, train
from compress.recovery.training.recipe import Recipe
from compress.recovery.training.run import Epoch
from compress.recovery.training.samples import Inputs, Samples
from compress.recovery.training.state import Keep
from compress.recovery.training.team import Team

TEMPERATURE = 2.0
TINY = 1e-12


def distill(
    original: nn.Module,
    module: nn.Module,
    samples: Samples,
    held: Samples | None,
    recipe: Recipe,
    team: Team,
    told: Progress,
    *,
    features: tuple[Feature, ...] = (),
    keep: Keep | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Trained:
    """Train `module` in place to answer as `original` does; labels are not looked at.

    The epoch that agrees best with the original on `held` is kept, or the first weights where no epoch is better.
    Both networks see the same changed images; the original is left as it was. Raises as `training.loop.train` does.
    """
    with ExitStack() as stack:
        stack.enter_context(left_as_it_was(original, team, channels_last=recipe.channels_last))
        set_mode(original, train=False)
        theirs = stack.enter_context(watching(original, features))
        ours = stack.enter_context(watching(module, features))

        def loss(student: nn.Module, inputs: Tensor, _labels: Tensor | None) -> Tensor:
            """Run both networks and compare."""
            with torch.no_grad():
                wanted = _outputs(original(inputs))
            have = _outputs(student(inputs))
            total = torch.stack([apart(h, w).mean() for h, w in zip(have, wanted, strict=False)]).sum()
            for feature in features:
                total = total + quotient(ours[feature.path], feature.of_original(theirs[feature.path]))
            return total

        judge = None if held is None else Judge(held.inputs, marks_by(original, held.inputs, team))
        task = Task(name="distill", module=module, samples=samples, loss=loss, judge=judge, incumbent=judge is not None)
        return train(task, recipe, team, told, keep=keep, on_epoch=on_epoch)


def apart(have: Tensor, wanted: Tensor) -> Tensor:
    """Return how far each of N outputs is from what is wanted: float32 (N,); nats for (N, classes)."""
    have, wanted = have.float(), wanted.float()
    if have.ndim == 2 and have.shape[1] > 1:
        log, target = (F.log_softmax(x / TEMPERATURE, dim=1) for x in (have, wanted))
        return F.kl_div(log, target, reduction="none", log_target=True).sum(1) * TEMPERATURE**2
    return (have - wanted).flatten(1).square().sum(1) / wanted.square().sum().clamp_min(TINY) * len(wanted)


def quotient(have: Tensor, wanted: Tensor) -> Tensor:
    """Return sum |have - wanted|^2 / sum |wanted|^2.

    >>> quotient(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 0.0])).item()
    0.25
    """
    have, wanted = have.float(), wanted.float()
    return (have - wanted).square().sum() / wanted.square().sum().clamp_min(TINY)


def marks_by(original: nn.Module, inputs: Inputs, team: Team) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return what counts the outputs whose largest is the original's, and sums how far they are apart."""
    order = list(torch.arange(len(inputs)).split(BATCH))
    with torch.no_grad():
        answers = [_outputs(original(batch.to(team.device)))[0].cpu() for batch in inputs.batches(order)]
    wanted = torch.cat(answers)

    def marks(output: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Compare a batch of outputs with the original's."""
        have, want = _outputs(output)[0], wanted[numbers].to(team.device)
        same = (have.argmax(1) == want.argmax(1)).sum() if have.ndim == 2 else torch.zeros(())
        return same, apart(have, want).sum()

    return marks


def _outputs(output: object) -> list[Tensor]:
    return [tensor for tensor in tensors_in(output) if tensor.is_floating_point()]
