"""The optimiser of a recipe, always built from the parameters that a network has now."""

from __future__ import annotations

import torch
from torch import nn

from compress.recovery.training.recipe import Optimizer, Recipe


def optimizer_for(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return a new optimiser over the parameters of `module` that want gradients; only matrices and kernels decay.

    A cut network has other parameters than the one that it was cut from: an optimiser is never carried over.

    >>> made = optimizer_for(nn.Linear(3, 2), Recipe(decay=0.1))
    >>> [(len(group["params"]), group["weight_decay"]) for group in made.param_groups]
    [(1, 0.1), (1, 0.0)]
    """
    wanted = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in wanted if p.ndim > 1], "weight_decay": recipe.decay},
        {"params": [p for p in wanted if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    match recipe.optimizer:
        case Optimizer.SGD:
            nesterov = recipe.momentum > 0
            return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov)
        case Optimizer.ADAM:
            return torch.optim.Adam(groups, lr=recipe.lr)
        case Optimizer.ADAMW:
            return torch.optim.AdamW(groups, lr=recipe.lr)
