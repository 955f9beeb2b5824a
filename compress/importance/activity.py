"""By what flows through a channel, as the weights that read it see it over calibration inputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from compress.core.members import Member
from compress.core.types import Group
from compress.importance.criteria import Weights, criterion
from compress.importance.evidence import Reads


def readers(group: Group, weights: Weights) -> list[tuple[Member, Reads]]:
    """The weights that read the group's channels, with what they read."""
    assert weights.evidence is not None
    reads = weights.evidence.reads
    return [(m, reads[m.parameter]) for m in group.members if not m.produces and m.parameter in reads]


def folded(vector: Tensor, member: Member, weights: Weights) -> Tensor:
    """Mean over the groups of a convolution: (channels read,) -> (size of the weight's input dimension,)."""
    return vector.reshape(-1, weights.tensors[member.parameter].shape[member.dim]).mean(0)


def _over_readers(group: Group, weights: Weights, value: Callable[[Member, Reads], Tensor]) -> np.ndarray | None:
    found = readers(group, weights)
    if not found:
        return None
    total = np.zeros(group.size)
    for member, reads in found:
        each = value(member, reads).cpu().numpy()[member.indices].sum(axis=1)
        total += each / (each.mean() or 1.0)
    return total / len(found)


@criterion("activation", "mean |activation| of the channel where it is read, relative to the group's mean", "inputs")
def activation(group: Group, weights: Weights) -> np.ndarray | None:
    """s[c] = mean over readers of E|x[c]| / mean_c E|x[c]|; (channels,) float64. Needs inputs, no labels.

    After Molchanov et al., ICLR 2017, arXiv:1611.06440.
    """
    return _over_readers(group, weights, lambda m, r: folded(r.size, m, weights))


@criterion("apoz", "fraction of places where the channel is not zero, relative to the group's mean", "inputs")
def apoz(group: Group, weights: Weights) -> np.ndarray | None:
    """s[c] = mean over readers of P(x[c] != 0) / mean_c; (channels,) float64. Needs inputs, no labels.

    One minus APoZ, Hu et al., 2016, arXiv:1607.03250.
    """
    return _over_readers(group, weights, lambda m, r: folded(r.alive, m, weights))


@criterion("wanda", "sum of |w| that reads the channel, times the channel's root mean square", "inputs")
def wanda(group: Group, weights: Weights) -> np.ndarray | None:
    """s[c] = mean over readers of sum|W[:, c]| sqrt(E x[c]^2), relative to its mean; (channels,) float64.

    Needs inputs, no labels. After Sun et al., ICLR 2024, arXiv:2306.11695.
    """

    def value(member: Member, reads: Reads) -> Tensor:
        size = torch.from_numpy(weights.norms(member.parameter, member.dim, 1))
        return size * folded(reads.square, member, weights).sqrt().cpu()

    return _over_readers(group, weights, value)
