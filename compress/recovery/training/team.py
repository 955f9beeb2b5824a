"""Several processes that train one network together, by accelerate: every step is that of one process.

Each process computes its share of every batch, and the gradients are averaged; the batch is as large as with one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compress.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class Team:
    """This process among `size`; the one of `rank` 0 writes and speaks."""

    rank: int
    size: int
    device: torch.device

    @property
    def main(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Return which part of `count` items is this process's.

        >>> [Team(rank, 2, torch.device("cpu")).share(5) for rank in range(2)]
        [slice(0, 3, None), slice(3, 5, None)]
        """
        each, more = divmod(count, self.size)
        first = self.rank * each + min(self.rank, more)
        return slice(first, first + each + (self.rank < more))

    def summed(self, tensor: Tensor) -> Tensor:
        """Return the sum of the processes' tensors."""
        if self.size == 1:
            return tensor
        from accelerate.utils import reduce

        total: Tensor = reduce(tensor, reduction="sum")
        return total

    def gathered(self, item: Any) -> list[Any]:
        """Return every process's `item`, in order."""
        if self.size == 1:
            return [item]
        from accelerate.utils import gather_object

        return list(gather_object([item]))

    def alike(self, module: nn.Module) -> None:
        """Give every process the weights of the first."""
        if self.size == 1:
            return
        from accelerate.utils import broadcast

        for tensor in module.state_dict().values():
            tensor.copy_(broadcast(tensor.detach().clone()))

    def average_gradients(self, parameters: Iterable[nn.Parameter], stop: bool) -> bool:
        """Replace every gradient by the mean over the processes; return whether any of them wants to `stop`.

        One message for all of them. A parameter without gradient has none afterwards.
        """
        if self.size == 1:
            return stop
        grads = [p.grad for p in parameters if p.grad is not None]
        first = grads[0]
        flat = torch.cat([*(grad.flatten() for grad in grads), first.new_tensor([float(stop)])])
        flat = self.summed(flat)
        for grad, mean in zip(grads, (flat[:-1] / self.size).split([g.numel() for g in grads]), strict=True):
            grad.copy_(mean.view_as(grad))
        return bool(flat[-1] > 0)


def processes() -> tuple[int, int]:
    """Return rank and number of processes, as torchrun tells them; (0, 1) where nobody does."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined(device: str | None = None) -> Iterator[Team]:
    """Join the processes that torchrun started, on one device each; alone where it started none.

    `device` None takes a GPU where there is one. Raises UsageError where accelerate is needed and missing, and where
    the device is not there.
    """
    if device is not None and device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"--device {device}: PyTorch sees no GPU here", fix="--device cpu, or leave it out")
    _, size = processes()
    if size == 1:
        yield Team(0, 1, torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")))
        return
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise UsageError(
            "several processes need the package accelerate, which is not installed",
            fix='pip install accelerate, or "channel-compress[distributed]"',
        ) from error
    state: Any = PartialState(cpu=device == "cpu" or not torch.cuda.is_available())
    try:
        yield Team(state.process_index, state.num_processes, state.device)
    finally:
        state.destroy_process_group()
