"""Group lasso with a growing strength: pull everything of a channel towards zero together.

    penalty = s(t) sum over channels c of a_c |w_c|,   w_c: every weight that leaves with channel c
    gradient of w_c += s(t) a_c w_c / |w_c|

The strength s(t) grows in equal steps from 0 to s over the first half of the training, as in GReg (Wang et al.,
arXiv:2012.09243): weak channels are pushed while the others still learn to do without them. Within a group the weaker
channel is pulled harder, a_c = 2^(4 (max - n_c) / (max - min)) of the norms n_c (Fang et al., arXiv:2301.12900, eq. 5).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.core.errors import UsageError
from compress.graph.analyse import Analysis

GROWS_FOR = 0.5  # fraction of the training
STEEP = 4.0
TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Slices:
    """One dimension of a parameter that the channels of a group occupy; `indices` is int64 (channels, m)."""

    parameter: nn.Parameter
    dim: int
    indices: Tensor


Pulled = tuple[tuple[Slices, ...], ...]


def channels_of(analysis: Analysis, module: nn.Module) -> Pulled:
    """Return, for every group that may leave, the slices of the parameters of `module` that its channels occupy.

    Raises UsageError where there is none.
    """
    parameters = dict(module.named_parameters())
    found = []
    for group in analysis.prunable:
        slices = [
            Slices(parameters[m.parameter], m.dim, torch.from_numpy(m.indices).to(parameters[m.parameter].device))
            for m in group.members
            if m.parameter in parameters and parameters[m.parameter].requires_grad
        ]
        if slices:
            found.append(tuple(slices))
    if not found:
        raise UsageError(
            "no channel of this network may leave, so there is nothing to pull", fix="leave --sparsity out"
        )
    return tuple(found)


def strength(sparsity: float, step: int, steps: int) -> float:
    """Return s(t) at `step` (from 0) of `steps`.

    >>> [round(strength(1.0, step, 8), 2) for step in range(6)]
    [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    """
    return sparsity * min(1.0, (step + 1) / max(GROWS_FOR * steps, 1))


def norms(group: tuple[Slices, ...]) -> Tensor:
    """Return the norm of everything that leaves with each channel, float32 (channels,)."""
    squares = [
        part.parameter.detach().movedim(part.dim, 0).flatten(1).square().sum(1)[part.indices].sum(1)
        if part.parameter.ndim > 1
        else part.parameter.detach().square()[part.indices].sum(1)
        for part in group
    ]
    return torch.stack(squares).sum(0).sqrt()


@torch.no_grad()
def pull_groups(pulled: Pulled, strong: float) -> None:
    """Add the penalty's gradient, with the strength s(t) = `strong`."""
    for group in pulled:
        size = norms(group)
        spread = size.max() - size.min()
        weight = 2 ** (STEEP * (size.max() - size) / spread) if spread > TINY else torch.ones_like(size)
        factor = strong * weight / size.clamp_min(TINY)
        for part in group:
            grad = part.parameter.grad
            if grad is None:
                continue
            along = torch.zeros(part.parameter.shape[part.dim], dtype=grad.dtype, device=grad.device)
            along[part.indices] = factor[:, None].to(grad.dtype).expand(part.indices.shape)
            shape = [-1 if d == part.dim else 1 for d in range(part.parameter.ndim)]
            grad.add_(part.parameter * along.view(shape))
