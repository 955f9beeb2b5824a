"""No result leaves unverified: the cut network against the masked original, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from compress.core.types import Verdict
from compress.graph.analyse import Analysis
from compress.surgery.silence import double_output, masked_output

TOLERANCE = 1e-6


def verify(
    original: nn.Module, cut: nn.Module, example: tuple[Any, ...], analysis: Analysis, dead: np.ndarray
) -> Verdict:
    """Run both on `example` in float64 and return how far apart they are.

    The error is max |cut - masked| over max |masked|, the largest over all outputs.
    """
    inputs = pytree.tree_map_only(torch.Tensor, lambda t: t.double() if t.is_floating_point() else t, example)
    reference = masked_output(original, inputs, analysis, dead)
    got = double_output(cut, inputs)
    worst = 0.0 if len(reference) == len(got) else float("inf")
    for want, have in zip(reference, got, strict=False):
        if want.shape != have.shape:
            worst = float("inf")
        elif want.numel():
            scale = float(want.abs().max()) or 1.0
            error = float((want - have).abs().max()) / scale
            worst = max(worst, error) if error == error else float("nan")  # noqa: PLR0124 - NaN must win
    statistics = bool(analysis.couplings.statistics)
    text = "the original with the removed channels' readers silenced" + (
        "; normalisations that lose channels take their statistics over the kept ones" if statistics else ""
    )
    return Verdict(max_relative_error=worst, tolerance=TOLERANCE, reference=text)
