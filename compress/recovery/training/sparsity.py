"""Pull BatchNorm scales towards zero: the L1 sub-gradient of network slimming (Liu et al., arXiv:1708.06519, eq. 1).

loss = cross-entropy + s sum |gamma|        gradient of gamma += s sign(gamma), where sign(0) = 0
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from compress.core.errors import UsageError


def scales(module: nn.Module, *, shifts: bool = False) -> list[nn.Parameter]:
    """Return the scales of every BatchNorm layer, with `shifts` their shifts too.

    Raises UsageError where there is none.
    """
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.affine]
    if not norms:
        raise UsageError(
            "--sparsity pulls at BatchNorm scales, but this network has none",
            fix="add --regularizer group-lasso, which pulls at whole channels",
        )
    return [norm.weight for norm in norms] + [norm.bias for norm in norms if shifts]


def start_scales(module: nn.Module, value: float) -> None:
    """Set every BatchNorm scale to `value`; the paper starts at 0.5."""
    for part in module.modules():
        if isinstance(part, _BatchNorm) and part.affine:
            nn.init.constant_(part.weight, value)


@torch.no_grad()
def pull(pulled: list[nn.Parameter], strength: float) -> None:
    """Add s sign(gamma) to the gradients.

    >>> gamma = nn.Parameter(torch.tensor([2.0, -1.0, 0.0]))
    >>> gamma.grad = torch.zeros(3)
    >>> pull([gamma], 0.1)
    >>> gamma.grad.tolist()
    [0.10..., -0.10..., 0.0]
    """
    for parameter in pulled:
        if parameter.grad is not None:
            parameter.grad.add_(parameter.sign(), alpha=strength)
