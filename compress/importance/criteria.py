"""What a criterion is, and the table of them. A score is (channels,) float64; larger means keep.

Normalisation: `bn` scores are the scales themselves, comparable over the network as network slimming compares them.
Magnitudes depend on a layer's fan-in, so `l1` and `l2` are divided by their mean over the group before they are
compared across groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from compress.core.errors import PlanError
from compress.core.registry import Registry
from compress.core.types import Group, Member

Scores = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Weights:
    """The network's tensors by name, and which of them scale a BatchNorm.

    Norms per index are computed once a (parameter, dimension) and remembered: densely connected networks read the same
    parameter from many groups.
    """

    tensors: Mapping[str, Tensor]
    norm_scales: frozenset[str]
    _cache: dict[tuple[str, int, int], np.ndarray] = field(default_factory=dict)

    def norms(self, name: str, dim: int, order: int) -> np.ndarray:
        """Sum of |w|**order over all but `dim`, (size of dim,) float64."""
        key = (name, dim, order)
        if key not in self._cache:
            self._cache[key] = _power_sums(self.tensors[name].detach(), dim, order).double().cpu().numpy()
        return self._cache[key]


def _power_sums(tensor: Tensor, dim: int, order: int) -> Tensor:
    """Sum of |w|**order (1 or 2) over all but `dim`, (size of dim,).

    PyTorch's norm is slow where it reduces over the leading dimension, its sum is not; blocks keep temporaries small.
    """
    if dim == 0:
        others = list(range(1, tensor.dim()))
        return (torch.linalg.vector_norm(tensor, order, dim=others) if others else tensor.abs()).double() ** order
    shape = (tensor.shape[dim], math.prod(tensor.shape[dim + 1 :]))
    total = torch.zeros(shape, dtype=torch.float64, device=tensor.device)
    rows = tensor.reshape(math.prod(tensor.shape[:dim]), *shape)
    for block in rows.split(max(1, _BLOCK // max(1, math.prod(shape)))):
        wide = block if block.dtype == torch.float64 else block.float()
        total += (wide.abs() if order == 1 else wide * wide).sum(0)
    return total.sum(1)


_BLOCK = 2**18
Function = Callable[[Group, Weights], np.ndarray | None]


@dataclass(frozen=True, slots=True)
class Criterion:
    """A named criterion: its formula in words, and the function, which gives None for a group it cannot judge."""

    name: str
    formula: str
    function: Function


CRITERIA: Registry[Criterion] = Registry("importance")


def criterion(name: str, formula: str) -> Callable[[Function], Function]:
    """Register a function of (group, weights) -> (channels,) float64, larger means keep."""

    def enter(function: Function) -> Function:
        CRITERIA.add(name, Criterion(name, formula, function))
        return function

    return enter


def _kernels(group: Group, weights: Weights) -> list[Member]:
    """Members that are kernels (two dimensions or more); all parameters where the group has none."""
    own = [m for m in group.members if isinstance(weights.tensors[m.parameter], nn.Parameter)]
    kernels = [m for m in own if weights.tensors[m.parameter].dim() > 1]
    return kernels or own


def _magnitude(group: Group, weights: Weights, order: int) -> np.ndarray:
    total = np.zeros(group.size)
    members = _kernels(group, weights)
    for member in members:
        each = weights.norms(member.parameter, member.dim, order)[member.indices].sum(axis=1)
        each = each if order == 1 else np.sqrt(each)
        total += each / (each.mean() or 1.0)
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


def default_criterion(groups: Sequence[Group], weights: Weights) -> str:
    """`bn` where every group has a BatchNorm scale, otherwise `l2`: scales and norms cannot be ranked together."""
    judged = all(any(m.parameter in weights.norm_scales for m in g.members) for g in groups)
    return "bn" if groups and judged else "l2"


def score(groups: Sequence[Group], weights: Weights, name: str) -> tuple[Scores, tuple[str, ...]]:
    """Score every group; also return the names of the groups that the criterion cannot judge, which then stay whole.

    Raises UsageError for an unknown criterion, PlanError where it can judge none of the groups.
    """
    chosen = CRITERIA[name]
    scores: dict[str, np.ndarray] = {}
    left: list[str] = []
    for group in groups:
        got = chosen.function(group, weights)
        if got is None:
            left.append(group.name)
        else:
            scores[group.name] = got
    if groups and not scores:
        raise PlanError(
            f"importance {name!r} cannot judge any group: the network has no BatchNorm", fix="use --importance l2"
        )
    return scores, tuple(left)
