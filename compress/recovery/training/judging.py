"""How good a network is on the held-out inputs: what decides which epoch is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.graph.modules import set_mode
from compress.recovery.training.samples import Inputs
from compress.recovery.training.team import Team

BATCH = 256

# output, numbers of the inputs -> how many are right, and the sum of their losses
Marks = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class Score:
    """`right` is the fraction of held-out inputs answered as wanted, `loss` the mean loss there; order of merit."""

    right: float
    loss: float

    def beats(self, other: Score | None) -> bool:
        """Whether this is better: more are right, or as many at less loss; NaN never is."""
        if self.loss != self.loss:
            return False
        return other is None or (self.right, -self.loss) > (other.right, -other.loss)


@dataclass(frozen=True, slots=True)
class Judge:
    """Held-out inputs and what is wanted of a network there."""

    inputs: Inputs
    marks: Marks

    def __call__(self, module: nn.Module, team: Team) -> Score:
        """Score `module`, in evaluation and float32; every process takes a share. Modes are left in evaluation."""
        set_mode(module, train=False)
        mine = torch.arange(len(self.inputs))[team.share(len(self.inputs))]
        order = list(mine.split(BATCH)) if len(mine) else []
        sums = torch.zeros(2, dtype=torch.float64)
        with torch.no_grad():
            for numbers, inputs in zip(order, self.inputs.batches(order), strict=True):
                right, loss = self.marks(module(inputs.to(team.device)), numbers)
                sums += torch.stack([right.double().cpu(), loss.double().cpu()])
        fractions = team.summed(sums.to(team.device)) / len(self.inputs)
        return Score(*fractions.tolist())
