"""A reloaded file as a module, so that whatever judges networks judges files too."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from compress.core.errors import ExportError
from compress.export.api import load
from compress.export.target import Loaded

# How many inputs go through a file at once.
ROWS = 16


class Answers(nn.Module):
    """Runs a file on one input, batch first; `rows` is the only batch size that it takes, None for any.

    Its output is the file's first. Where the file takes one batch size only, the last batch is filled up with copies of
    its first row, whose answers are dropped.
    """

    def __init__(self, run: Loaded, rows: int | None = None) -> None:
        super().__init__()
        self._run = run
        self._rows = rows

    def forward(self, x: Tensor) -> Tensor:
        """Take (N, ...) to the file's first output for it, (N, ...)."""
        if self._rows is None:
            return self._run((x,))[0]
        missing = -len(x) % self._rows
        whole = torch.cat([x, x[:1].expand(missing, *x.shape[1:])]) if missing else x
        parts = [self._run((part.contiguous(),))[0] for part in whole.split(self._rows)]
        return torch.cat(parts)[: len(x)]


def answers(path: Path, rows: int | None = None) -> Answers:
    """Reload a file in its own runtime as a module of one input and one output.

    Raises UsageError for an unknown suffix or a missing file, ExportError where the runtime refuses the file.
    """
    return Answers(load(path), rows)


def same_class(given: Tensor, reference: Tensor) -> float | None:
    """Return on which fraction of the rows both have their largest value at the same place; None without classes.

    Both are (N, C).
    """
    if given.shape != reference.shape:
        raise ExportError(f"two answers have the shapes {tuple(given.shape)} and {tuple(reference.shape)}")
    if given.dim() != 2 or given.shape[1] < 2:
        return None
    return float((given.argmax(1) == reference.argmax(1)).double().mean())


def outputs(run: nn.Module, inputs: Tensor) -> Tensor:
    """Return the answers to all `inputs`, a few at a time."""
    return torch.cat([run(part) for part in inputs.split(ROWS)])


def distance(given: Tensor, reference: Tensor) -> float:
    """Return sum (given - reference)^2 / sum reference^2; infinite where something is not finite."""
    apart = float((given.double() - reference.double()).square().sum() / reference.double().square().sum())
    return apart if apart == apart else float("inf")  # noqa: PLR0124 - NaN is the only number unlike itself
