"""What a training borrows from a module and gives back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from compress.graph.trace import walk
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
def left_as_it_was(module: nn.Module, team: Team) -> Iterator[None]:
    """Put the module on the team's device, and afterwards its modes, its device and all random numbers back."""
    home = next((p.device for p in module.parameters()), torch.device("cpu"))
    modes = [(part, part.training) for _, part in walk(module)]
    gpus = [team.device.index or 0] if team.device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        module.to(team.device)
        try:
            yield
        finally:
            module.to(home)
            for part, training in modes:
                part.training = training
