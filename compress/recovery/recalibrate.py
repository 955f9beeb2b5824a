"""Batch norm statistics of the cut network, estimated anew; kept only where that brings its outputs nearer.

A cut changes what flows into every batch norm, and its running mean and variance describe the uncut network. They are
estimated layer by layer in the order in which the layers run, in one pass: each layer's input has been normalised with
the statistics already found. Means and variances are summed in float64.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compress.graph.modules import tensors_of
from compress.graph.watch import watched
from compress.recovery.closeness import distance

HELD_OUT = 0.2
SPLIT = 5  # so many batches are held out whole


@dataclass(frozen=True, slots=True)
class Recalibrated:
    """Distance of the outputs from the original's on held-out inputs, before and after; whether it was kept."""

    norms: int
    before: float
    after: float
    kept: bool
    inputs: int
    seconds: float


def recalibrate(
    original: nn.Module,
    cut: nn.Module,
    inputs: Iterable[Tensor],
    *,
    advance: Callable[[int, int], None] | None = None,
) -> Recalibrated:
    """Estimate the running statistics of `cut` anew, in place, or leave them where that does not help.

    `inputs` are batches, batch first; the last fifth (of the batches, or of each where they are few) is held out, and
    decides by the distance of the outputs from the original's (`closeness.distance`). Layers that keep no running
    statistics are not touched.
    """
    start = time.perf_counter()
    given = list(inputs)
    batches, held = _split(given)
    pairs = running_statistics(cut)
    saved = {name: tensor.clone() for name, tensor in tensors_of(cut).items() if name in set(_flat(pairs))}
    before = distance(original, cut, held)
    sums: dict[str, tuple[int, Tensor, Tensor]] = {}
    for number, batch in enumerate(batches):
        _pass(cut, batch, pairs, sums)
        if advance is not None:
            advance(number + 1, len(batches))
    after = distance(original, cut, held) if pairs else before
    better = after < before
    if not better:
        tensors = tensors_of(cut)
        for name, tensor in saved.items():
            tensors[name].copy_(tensor)
    total = sum(len(batch) for batch in given)
    return Recalibrated(len(pairs), before, after, better, total, time.perf_counter() - start)


def _split(batches: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """What is learned from, and what is held out."""
    if len(batches) >= SPLIT:
        last = max(int(len(batches) * HELD_OUT), 1)
        return batches[:-last], batches[-last:]
    cuts = [len(batch) - max(int(len(batch) * HELD_OUT), 1) for batch in batches]
    pairs = [(batch[:at], batch[at:]) for batch, at in zip(batches, cuts, strict=True) if at > 0]
    return [used for used, _ in pairs], [aside for _, aside in pairs]


def _flat(pairs: dict[str, str]) -> list[str]:
    return [*pairs, *pairs.values()]


def running_statistics(module: nn.Module) -> dict[str, str]:
    """Names of the running means -> names of the running variances."""
    tensors = tensors_of(module)
    found = {name: name.removesuffix("mean") + "var" for name in tensors if name.rpartition(".")[2] == "running_mean"}
    return {mean: var for mean, var in found.items() if var in tensors}


def _pass(cut: nn.Module, batch: Tensor, pairs: dict[str, str], sums: dict[str, tuple[int, Tensor, Tensor]]) -> None:
    tensors = tensors_of(cut)

    def estimate(name: str, use: int, x: Tensor, run: Callable[[], Any]) -> Any:
        """Add what a batch norm reads to its statistics, then run it."""
        del use
        flat = x.detach().transpose(0, 1).flatten(1)
        rows, mean = flat.shape[1], flat.mean(1, dtype=torch.float64)
        square = (
            (flat - mean[:, None].to(flat.dtype)).square().mean(1, dtype=torch.float64)
        )  # around the mean: no cancellation
        count, total, squares = sums.get(name, (0, torch.zeros_like(mean), torch.zeros_like(mean)))
        count, total, squares = count + rows, total + rows * mean, squares + rows * (square + mean.square())
        sums[name] = (count, total, squares)
        centre = total / count
        tensors[name].copy_(centre)
        tensors[pairs[name]].copy_((squares / count - centre.square()).clamp_min(0))
        return run()

    watched(cut, (batch,), {name: tensors[name] for name in pairs}, estimate)
