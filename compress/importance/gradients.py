"""By how the loss leans on the channel's weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from compress.core.types import Group
from compress.importance.criteria import Weights, criterion


def _summed(group: Group, weights: Weights, terms: Mapping[str, Tensor], power: int) -> np.ndarray | None:
    """Sum over the channel's slices of every parameter with a gradient of terms * w**power, (channels,)."""
    members = [m for m in group.members if m.parameter in terms]
    if not members:
        return None
    total = np.zeros(group.size)
    for member in members:
        weight = weights.tensors[member.parameter].detach()
        product = (terms[member.parameter] * weight**power).double().movedim(member.dim, 0)
        each = product.flatten(1).sum(1) if product.dim() > 1 else product
        total += each[torch.from_numpy(member.indices).to(each.device)].sum(1).cpu().numpy()
    return total


@criterion(
    "taylor",
    "|sum of gradient times weight| over all of the channel's slices: first-order change of the loss",
    "labels",
)
def taylor(group: Group, weights: Weights) -> np.ndarray | None:
    """s[c] = |sum over slices of dL/dw w|, L the mean cross-entropy; (channels,) float64. Needs inputs and labels.

    Molchanov et al., CVPR 2019, arXiv:1906.10771.
    """
    assert weights.evidence is not None
    total = _summed(group, weights, weights.evidence.gradients, 1)
    return None if total is None else np.abs(total)


@criterion(
    "hessian", "half the curvature of the loss times the squared weight, summed over the channel's slices", "inputs"
)
def hessian(group: Group, weights: Weights) -> np.ndarray | None:
    """s[c] = 1/2 sum over slices of H_ww w^2, H the Fisher diagonal; (channels,) float64. Needs inputs, no labels.

    Optimal brain damage, LeCun et al., NIPS 1989; labels are drawn from the network's own answers.
    """
    assert weights.evidence is not None
    total = _summed(group, weights, weights.evidence.curvature, 2)
    return None if total is None else total / 2
