"""Does a file compute what the network computes? Inputs to ask with, and the distance between two answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from compress.graph.modules import fresh

SEED = 0
TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Question:
    """Inputs of one batch size, and the network's own answer to them, flattened, on the CPU."""

    batch: int
    inputs: tuple[Tensor, ...]
    answer: tuple[Tensor, ...]


def answer_of(output: Any) -> tuple[Tensor, ...]:
    """Return the tensors in a nested output, in its own order, detached and on the CPU."""
    return tuple(leaf.detach().cpu() for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor))


def answering(module: Callable[..., Any]) -> Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]:
    """Return the module as a function from a tuple of inputs to its output's tensors, flattened, on the CPU."""

    def run(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return answer_of(module(*fresh(inputs)))

    return run


def batched_inputs(example: Sequence[Tensor]) -> tuple[bool, ...]:
    """Tell which inputs carry the batch: those whose first dimension is as long as the first input's."""
    if not example or example[0].dim() == 0:
        return tuple(False for _ in example)
    batch = example[0].shape[0]
    return tuple(x.dim() > 0 and x.shape[0] == batch for x in example)


def none_of(example: Sequence[Tensor]) -> tuple[bool, ...]:
    """Say "no" for every input."""
    return tuple(False for _ in example)


def sized_inputs(example: Sequence[Tensor]) -> tuple[bool, ...]:
    """Tell which inputs have a height and a width: floats of shape (N, C, H, W)."""
    return tuple(x.dim() == 4 and x.is_floating_point() for x in example)


def grown(example: Sequence[Tensor], sized: Sequence[bool]) -> tuple[Tensor, ...]:
    """Return the example with 32 rows and 64 columns more where `sized`; networks halve an input up to five times."""
    return tuple(
        x.new_zeros((*x.shape[:2], x.shape[2] + 32, x.shape[3] + 64)) if wide else x
        for x, wide in zip(example, sized, strict=True)
    )


def like(example: Sequence[Tensor], batched: Sequence[bool], batch: int) -> tuple[Tensor, ...]:
    """Return fixed-seed random inputs of the example's shapes and dtypes, with `batch` rows where `batched`.

    Floats are normal; integers are drawn between the example's smallest and largest value, so that indices stay valid.
    """
    generator = torch.Generator().manual_seed(SEED)
    return tuple(
        _draw(x, (batch, *x.shape[1:]) if free else tuple(x.shape), generator)
        for x, free in zip(example, batched, strict=True)
    )


def _draw(x: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if x.is_floating_point() or x.is_complex():
        drawn = torch.randn(shape, generator=generator, dtype=torch.complex64 if x.is_complex() else torch.float32)
    elif x.dtype == torch.bool:
        drawn = torch.randint(0, 2, shape, generator=generator)
    else:
        low, high = (int(x.min()), int(x.max())) if x.numel() else (0, 0)
        drawn = torch.randint(low, high + 1, shape, generator=generator)
    return drawn.to(dtype=x.dtype, device=x.device)


def same_form(answer: Sequence[Tensor], given: Sequence[Tensor]) -> bool:
    """Tell whether two flattened outputs have as many tensors, of the same shapes."""
    return [tuple(a.shape) for a in answer] == [tuple(b.shape) for b in given]


def relative_error(answer: Sequence[Tensor], given: Sequence[Tensor]) -> float:
    """Return max |given - answer| / max |answer| over all outputs, in float64.

    Not-a-number where the answer is finite, and the other way round, is an infinite error; equal infinities and NaNs
    agree. Where the answer is all zero the error is absolute.
    """
    worst = scale = 0.0
    for a, b in zip(answer, given, strict=True):
        if a.numel() == 0:
            continue
        wide = torch.complex128 if a.is_complex() or b.is_complex() else torch.float64
        x, y = a.to(wide), b.to(wide)
        finite = x.isfinite()
        if not torch.equal(finite, y.isfinite()) or not torch.equal(_strange(x, finite), _strange(y, finite)):
            return float("inf")
        if finite.any():
            worst = max(worst, float((x - y)[finite].abs().max()))
            scale = max(scale, float(x[finite].abs().max()))
    return worst / scale if scale else worst


def _strange(x: Tensor, finite: Tensor) -> Tensor:
    """Return the non-finite entries of `x`, written so that equal ones compare equal."""
    return torch.nan_to_num(torch.view_as_real(x[~finite]) if x.is_complex() else x[~finite], nan=0.5)
