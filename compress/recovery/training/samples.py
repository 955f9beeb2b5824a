"""Inputs to learn from: in memory where they fit, else read while the network trains."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

WORKERS = 2


class Inputs(Protocol):
    """Inputs by number."""

    def __len__(self) -> int:
        """Return how many there are."""

    def batches(self, order: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield one batch, float32 and batch first, for each int64 tensor of numbers in `order`."""


@dataclass(frozen=True, slots=True)
class InMemory:
    """Inputs that lie in one tensor, batch first."""

    tensor: Tensor

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.tensor)

    def batches(self, order: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield a batch for each tensor of numbers."""
        for numbers in order:
            yield self.tensor[numbers]


@dataclass(frozen=True, slots=True)
class OnDisk:
    """Inputs of a data set that gives (input, label), read by processes of their own; `chosen` are its numbers."""

    dataset: Dataset[tuple[Tensor, int]]
    chosen: Tensor
    workers: int = WORKERS

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.chosen)

    def batches(self, order: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield a batch for each tensor of numbers, in that order."""
        numbers = [self.chosen[batch].tolist() for batch in order]
        loader = DataLoader(
            self.dataset, batch_sampler=numbers, num_workers=self.workers, collate_fn=_inputs, worker_init_fn=_deaf
        )
        yield from loader


def _deaf(_worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the training itself comes to its end first


def _inputs(items: Sequence[tuple[Tensor, int]]) -> Tensor:
    return torch.stack([item[0] for item in items])


@dataclass(frozen=True, slots=True)
class Samples:
    """Inputs, and their labels, int64 (inputs,), where they have some.

    `fill` (C,) is what black is after normalisation, for the border of shifted images; None is 0.
    """

    inputs: Inputs
    labels: Tensor | None = None
    fill: Tensor | None = None

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.inputs)


def order_of(count: int, size: int, seed: int, epoch: int) -> list[Tensor]:
    """Return the batches of an epoch: int64 numbers in an order that hangs on `seed` and `epoch` alone.

    The incomplete last batch is left out; which inputs are in it changes from epoch to epoch.

    >>> first, again = (order_of(5, 2, seed=0, epoch=1) for _ in range(2))
    >>> len(first), [batch.tolist() for batch in first] == [batch.tolist() for batch in again]
    (2, True)
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(count, generator=generator)
    return list(order[: count // size * size].split(size))


def parted(count: int, fraction: float, most: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the numbers to learn from and those held out, at most `most`, in random order.

    >>> used, held = parted(10, 0.2, 5, seed=0)
    >>> len(used), len(held), sorted([*used.tolist(), *held.tolist()]) == list(range(10))
    (8, 2, True)
    """
    held = min(int(count * fraction), most)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[: count - held], order[count - held :]
