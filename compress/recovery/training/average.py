"""An exponential moving average of the weights (Polyak; as used since arXiv:1703.01780)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def started(module: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the module's state to average into."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


@torch.no_grad()
def follow(average: Mapping[str, Tensor], module: nn.Module, decay: float, step: int) -> None:
    """Take one step, in place: average <- d average + (1 - d) weights; whole-number buffers are copied.

    d = min(decay, (1 + step) / (10 + step)): the first weights, which mean little, are soon forgotten.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> mean = {"weight": torch.zeros(1, 1)}
    >>> _ = nn.init.ones_(layer.weight)
    >>> follow(mean, layer, 0.9, step=0)
    >>> round(mean["weight"].item(), 6)
    0.9
    """
    kept = min(decay, (1 + step) / (10 + step))
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            average[name].lerp_(tensor, 1 - kept)
        else:
            average[name].copy_(tensor)
