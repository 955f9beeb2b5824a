"""No result leaves unverified: the cut network against the masked original, in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compress.core.errors import ExactnessError
from compress.core.types import Verdict
from compress.graph.analyse import Analysis
from compress.graph.modules import replaced, tensors_of
from compress.surgery.cut import kept_indices, kept_tensors
from compress.surgery.silence import double_output, masked_output

TOLERANCE = 1e-6
_EXAMPLE = "give an example that it answers, or leave the check out with --no-verify"


def verify(
    original: nn.Module, cut: nn.Module, example: tuple[Any, ...], analysis: Analysis, dead: np.ndarray
) -> Verdict:
    """Run both on `example` in float64 and return how far apart they are.

    The error is max |cut - masked| over max |masked|, the largest over all outputs. Where the output is zero throughout
    (a head that was initialised with zeros), parameters that are all zero are given random values for the comparison,
    in both alike. Raises ExactnessError where it is zero even then, or NaN: the comparison would show nothing.
    """
    inputs = pytree.tree_map_only(torch.Tensor, lambda t: t.double() if t.is_floating_point() else t, example)
    reference = masked_output(original, inputs, analysis, dead)
    got = double_output(cut, inputs)
    if reference and not any(t.any() for t in reference):
        reference, got = _revived(original, cut, inputs, analysis, dead)
        if not any(t.any() for t in reference):
            raise ExactnessError("the network's output is zero on the example, so nothing can be checked", fix=_EXAMPLE)
    if any(t.isnan().any() for t in reference):
        raise ExactnessError("the network's own output is NaN on the example, so nothing can be checked", fix=_EXAMPLE)
    statistics = bool(analysis.couplings.statistics)
    text = "the original with the removed channels' readers silenced" + (
        "; normalisations that lose channels take their statistics over the kept ones" if statistics else ""
    )
    return Verdict(max_relative_error=worst(reference, got), tolerance=TOLERANCE, reference=text)


def worst(reference: list[Tensor], got: list[Tensor]) -> float:
    """Largest relative error over the outputs; infinite where they do not correspond, NaN where one is NaN.

    Infinite numbers (of places that are masked) have to be the same.
    """
    if len(reference) != len(got) or any(a.shape != b.shape for a, b in zip(reference, got, strict=True)):
        return math.inf
    errors = [
        float(torch.where(want == have, 0.0, want - have).abs().max()) / (_largest(want) or 1.0)
        for want, have in zip(reference, got, strict=True)
        if want.numel()
    ]
    return math.nan if any(map(math.isnan, errors)) else max(errors, default=0.0)


def _largest(values: Tensor) -> float:
    """The largest magnitude among the finite ones; 0.0 where there are none."""
    return float(values.abs().where(values.isfinite(), 0.0).max())


def _revived(
    original: nn.Module, cut: nn.Module, inputs: tuple[Any, ...], analysis: Analysis, dead: np.ndarray
) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs of both with random numbers in the place of all-zero parameters; both are as before afterwards."""
    random = torch.Generator().manual_seed(0)
    whole, small = tensors_of(original), tensors_of(cut)
    given = {
        name: torch.randn(t.shape, generator=random).to(t)
        for name, t in whole.items()
        if t.is_floating_point() and name in small and not t.any()
    }
    sliced = kept_tensors(given, kept_indices(analysis, dead))
    with replaced(original, {id(t): given.get(name, t) for name, t in whole.items()}):
        reference = masked_output(original, inputs, analysis, dead)
    with replaced(cut, {id(t): sliced.get(name, t) for name, t in small.items()}):
        return reference, double_output(cut, inputs)
