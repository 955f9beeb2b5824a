"""By the size of weights alone.

`bn` scores are the scales themselves, comparable over the network as network slimming compares them. Magnitudes depend
on a layer's fan-in, so the others are divided by their mean over the group before they are compared across groups.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch

from compress.core.members import Member
from compress.core.types import Group
from compress.importance.criteria import Weights, criterion


def kernels(group: Group, weights: Weights) -> list[Member]:
    """Members that are kernels (two dimensions or more); all parameters where the group has none."""
    ranks = [weights.rank(m.parameter) for m in group.members]
    return [m for m, rank in zip(group.members, ranks, strict=True) if rank == max(ranks) > 0]


def _magnitude(group: Group, weights: Weights, order: int) -> np.ndarray:
    members = group.members
    ranks = weights.ranks(members.slots)[members.slot]
    best = int(ranks.max())
    if not best:
        return np.zeros(group.size)
    places = np.flatnonzero(ranks == best)  # those of kernels; of all parameters where the group has none
    slot = members.slot[places]
    each = weights.sums(members.slots, order, best)[members.labels(places)]  # (places, channels)
    starts = np.flatnonzero(np.r_[True, slot[1:] != slot[:-1]])
    if len(starts) < len(places):
        each = np.add.reduceat(each, starts)  # a member may hold several indices of a channel
    each = each if order == 1 else np.sqrt(each)
    means = each.mean(axis=1)
    total: np.ndarray = (1 / np.where(means > 0, means, 1.0)) @ each
    mean = total.mean()
    return total / mean if mean > 0 else total


@criterion(
    "l1", "sum of |w| over the channel's slice of every kernel that makes or reads it, relative to the group's mean"
)
def l1(group: Group, weights: Weights) -> np.ndarray:
    """s[c] = mean over kernels of sum|w[c]| / mean_c sum|w[c]|. After Li et al., ICLR 2017, arXiv:1608.08710."""
    return _magnitude(group, weights, 1)


@criterion(
    "l2", "Euclidean norm of the channel's slice of every kernel that makes or reads it, relative to the group's mean"
)
def l2(group: Group, weights: Weights) -> np.ndarray:
    """s[c] = mean over kernels of |w[c]|_2 / mean_c |w[c]|_2; grouped as in DepGraph, Fang et al., CVPR 2023."""
    return _magnitude(group, weights, 2)


@criterion("bn", "largest |gamma| over the BatchNorm scales of the channel, compared over the whole network")
def bn(group: Group, weights: Weights) -> np.ndarray | None:
    """s[c] = max over BatchNorm layers of |gamma[c]|. Network slimming, Liu et al., ICCV 2017, arXiv:1708.06519.

    A residual stream passes several scales; one that is alive keeps the channel alive, so the largest speaks for it.
    """
    scales = [m for m in group.members if m.parameter in weights.norm_scales]
    if not scales:
        return None
    each = [np.abs(weights.norms(m.parameter, 0, 1)[m.indices]).max(axis=1) for m in scales]
    return np.max(each, axis=0)  # type: ignore[no-any-return]


@criterion("lamp", "squared l2 over the sum of the squares of all channels of the group that are at least as large")
def lamp(group: Group, weights: Weights) -> np.ndarray:
    """s[c] = m[c]^2 / sum of m[j]^2 over m[j] >= m[c], with m as in l2. Lee et al., ICLR 2021, arXiv:2010.07611."""
    square = _magnitude(group, weights, 2) ** 2
    order = np.argsort(-square, kind="stable")
    above = np.cumsum(square[order])
    scores = np.zeros_like(square)
    scores[order] = square[order] / np.where(above > 0, above, 1.0)
    return scores


@criterion("fpgm", "sum of the distances to the group's other channels: what lies amid them can be replaced by them")
def fpgm(group: Group, weights: Weights) -> np.ndarray:
    """s[c] = mean over kernels of sum_j |w[c] - w[j]|_2 / its mean. He et al., CVPR 2019, arXiv:1811.00250."""
    total = np.zeros(group.size)
    for member in kernels(group, weights):
        tensor = weights.tensors[member.parameter].detach().float().movedim(member.dim, 0).flatten(1)
        rows = tensor[torch.from_numpy(member.indices).to(tensor.device)].flatten(1)  # (channels, m * rest)
        each = torch.cdist(rows, rows).sum(1).double().cpu().numpy()
        total += each / (each.mean() or 1.0)
    mean = total.mean()
    return total / mean if mean > 0 else total


@criterion("random", "random numbers, the same ones for the same group: what any criterion has to beat")
def random(group: Group, weights: Weights) -> np.ndarray:
    """s[c] uniform in [0, 1), seeded by the group's name."""
    del weights
    return np.random.default_rng(zlib.crc32(group.name.encode())).random(group.size)
