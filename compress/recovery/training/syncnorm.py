"""BatchNorm over the whole batch where several processes have a share of it each.

PyTorch's SyncBatchNorm runs on GPUs only; this one runs wherever processes can add tensors, and its gradient too.
Layers are lent another forward for the duration of the training: their class, and what is saved of them, is their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compress.recovery.training.team import Team


@contextmanager
def synchronised(module: nn.Module, team: Team) -> Iterator[None]:
    """Let every BatchNorm layer of `module` take its statistics over all processes; nothing changes for one process.

    In a rewritten graph, where BatchNorm is an operator and no layer, every process keeps to its own share.
    """
    layers = [part for part in module.modules() if isinstance(part, _BatchNorm)] if team.size > 1 else []
    for layer in layers:
        layer.__dict__["forward"] = partial(_forward, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["forward"]


def _forward(layer: _BatchNorm, x: Tensor) -> Tensor:
    """Normalise x (N, C, *) with mean and variance over the N of all processes; as the layer does in evaluation."""
    if not layer.training:
        return type(layer).forward(layer, x)
    dims = [d for d in range(x.ndim) if d != 1]
    wide = x.float()
    count = wide.new_tensor([wide.numel() / wide.shape[1]])
    sums = _all_reduce(torch.cat([wide.sum(dims), wide.square().sum(dims), count]))
    total = sums[-1].detach()
    mean, square = (part / total for part in sums[:-1].chunk(2))
    variance = (square - mean.square()).clamp_min(0)
    _follow(layer, mean.detach(), (variance * total / (total - 1).clamp_min(1)).detach())
    shape = [1, -1] + [1] * (x.ndim - 2)
    normal = (wide - mean.view(shape)) * (variance + layer.eps).rsqrt().view(shape)
    if layer.affine:
        normal = normal * layer.weight.view(shape) + layer.bias.view(shape)
    return normal.to(x.dtype)


def _all_reduce(tensor: Tensor) -> Tensor:
    from torch.distributed.nn.functional import all_reduce

    total: Tensor = all_reduce(tensor)
    return total


@torch.no_grad()
def _follow(layer: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Move the running statistics, as PyTorch's own layer does."""
    if not layer.track_running_stats or layer.running_mean is None or layer.running_var is None:
        return
    if layer.num_batches_tracked is not None:
        layer.num_batches_tracked.add_(1)
    momentum = layer.momentum
    if momentum is None:
        momentum = 1.0 / float(layer.num_batches_tracked or 1)
    layer.running_mean.lerp_(mean, momentum)
    layer.running_var.lerp_(variance, momentum)
