"""By how much a channel varies at all: one that is the same everywhere says nothing that a bias could not say."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from compress.core.types import Group
from compress.graph.modules import tensors_of
from compress.graph.watch import Call, watched
from compress.importance.criteria import Weights, criterion
from compress.importance.evidence import Evidence


@criterion(
    "range", "largest minus smallest value of the channel where it is read, over all inputs and places", "inputs"
)
def value_range(group: Group, weights: Weights) -> np.ndarray | None:
    """s[c] = max over readers of (max x[c] - min x[c]). Zero: dead, its readers do without it and a bias.

    Kernels that extend over several pixels read zeros beyond the border as well, so that there only a channel that is
    zero everywhere has no range.
    """
    assert weights.evidence is not None
    spans = _spans(weights.evidence)
    found = [m for m in group.members if not m.produces and m.parameter in spans]
    if not found:
        return None
    every = []
    for member in found:
        size = weights.tensors[member.parameter].shape[member.dim]
        span = spans[member.parameter].reshape(-1, size).amax(0)
        every.append(span.numpy()[member.indices].max(axis=1))
    scores: np.ndarray = np.max(every, axis=0)
    return scores


def _spans(evidence: Evidence) -> dict[str, Tensor]:
    """Largest minus smallest value that every weight reads, by name: (channels read,) float64; one pass, remembered."""
    if "range" not in evidence.memo:
        part = evidence.module.get_submodule(evidence.submodule)
        kernels = {n: t for n, t in tensors_of(part).items() if t.dim() > 1}
        ends: dict[str, tuple[Tensor, Tensor]] = {}

        def beside(name: str, use: int, x: Tensor, run: Call) -> object:
            """Widen the range of what the weight reads, then run the operator."""
            del use
            wide = kernels[name].dim() > 2
            others = [d for d in range(x.dim()) if d != (1 if wide else x.dim() - 1)]
            low, high = x.amin(others).double().cpu(), x.amax(others).double().cpu()
            if wide and math.prod(kernels[name].shape[2:]) > 1:
                low, high = low.clamp(max=0), high.clamp(min=0)
            before = ends.get(name, (low, high))
            ends[name] = torch.minimum(low, before[0]), torch.maximum(high, before[1])
            return run()

        with torch.no_grad():
            for batch in evidence.inputs:
                watched(evidence.module, (batch,), kernels, beside)
        evidence.memo["range"] = {name: high - low for name, (low, high) in ends.items()}
    found: dict[str, Tensor] = evidence.memo["range"]
    return found
