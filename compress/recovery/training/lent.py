"""What a training borrows from a module and gives back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from compress.graph.modules import walk
from compress.recovery.training.run import copied
from compress.recovery.training.team import Team


@contextmanager
def lent(module: nn.Module, other: dict[str, Tensor] | None) -> Iterator[None]:
    """Lend the module other weights."""
    if other is None:
        yield
        return
    own = copied(module.state_dict())
    module.load_state_dict(other)
    try:
        yield
    finally:
        module.load_state_dict(own)


@contextmanager
def left_as_it_was(module: nn.Module, team: Team, *, channels_last: bool = False) -> Iterator[None]:
    """Put the module on the team's device, and afterwards its modes, its device and all random numbers back.

    With `channels_last` its kernels lie meanwhile so that convolutions give maps with the channels innermost.
    """
    home = next((p.device for p in module.parameters()), torch.device("cpu"))
    modes = [(part, part.training) for _, part in walk(module)]
    gpus = [team.device.index or 0] if team.device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        module.to(team.device)
        kernels = [p for p in module.parameters() if channels_last and p.ndim == 4 and p.is_contiguous()]
        _lay(kernels, torch.channels_last)
        try:
            yield
        finally:
            module.to(home)
            _lay(kernels, torch.contiguous_format)
            for part, training in modes:
                part.training = training


def _lay(kernels: list[nn.Parameter], order: torch.memory_format) -> None:
    """Lay the kernels of two-dimensional convolutions anew; the parameters stay the same objects."""
    for kernel in kernels:
        kernel.data = laid(kernel.data, order)


def laid(tensor: Tensor, order: torch.memory_format) -> Tensor:
    """Return the tensor (N, C, H, W) in another layout.

    With one channel both are the same bytes, and only the strides tell what is wanted of the operators that read it.

    >>> laid(torch.zeros(2, 1, 3, 3), torch.channels_last).stride()
    (9, 1, 3, 1)
    """
    return torch.empty_like(tensor, memory_format=order).copy_(tensor)
