"""What a criterion is, and the table of them. A score is (channels,) float64; larger means keep."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from compress.core.errors import PlanError, UsageError
from compress.core.members import Slots
from compress.core.registry import Registry
from compress.core.types import Group
from compress.importance.evidence import Evidence

Scores = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Weights:
    """The network's tensors by name, and which of them scale a BatchNorm.

    Norms per index are computed once a (parameter, dimension) and remembered: densely connected networks read the same
    parameter from many groups. `evidence` is what the network does on inputs, where some were given.
    """

    tensors: Mapping[str, Tensor]
    norm_scales: frozenset[str]
    evidence: Evidence | None = None
    _cache: dict[tuple[str, int, int], np.ndarray] = field(default_factory=dict)
    _ranks: dict[Slots, np.ndarray] = field(default_factory=dict)
    _sums: dict[tuple[Slots, int, int], np.ndarray] = field(default_factory=dict)

    def rank(self, name: str) -> int:
        """How much a tensor's size tells: 2 of a kernel (two dimensions or more), 1 of another parameter, else 0."""
        tensor = self.tensors.get(name)
        return min(tensor.dim(), 2) if isinstance(tensor, nn.Parameter) else 0

    def ranks(self, slots: Slots) -> np.ndarray:
        """The rank of every slot's tensor."""
        if slots not in self._ranks:
            self._ranks[slots] = np.array([self.rank(name) for name, _ in slots.names])
        return self._ranks[slots]

    def sums(self, slots: Slots, order: int, rank: int) -> np.ndarray:
        """`norms` of the slots of this rank, one after the other as their labels lie: (labels,) float64."""
        key = slots, order, rank
        if key not in self._sums:
            found = self._sums[key] = np.zeros(slots.ends[-1])
            for number in np.flatnonzero(self.ranks(slots) == rank).tolist():
                found[slots.starts[number] : slots.ends[number]] = self.norms(*slots.names[number], order)
        return self._sums[key]

    def norms(self, name: str, dim: int, order: int) -> np.ndarray:
        """Sum of |w|**order over all but `dim`, (size of dim,) float64."""
        if (name, dim, order) not in self._cache:
            tensor = self.tensors[name].detach()
            for d in {dim, *range(min(2, tensor.dim()))}:  # most are read along both, and are in the cache now
                self._cache[name, d, order] = _power_sums(tensor, d, order).double().cpu().numpy()
        return self._cache[name, dim, order]


def _power_sums(tensor: Tensor, dim: int, order: int) -> Tensor:
    """Sum of |w|**order (1 or 2) over all but `dim`, (size of dim,).

    PyTorch's norm is slow where it reduces over the leading dimension, its sum is not; blocks keep temporaries small.
    """
    before, after = math.prod(tensor.shape[:dim]), math.prod(tensor.shape[dim + 1 :])
    quick = tensor.numel() <= _SMALL or (after == 1 and before <= _FEW)
    if order == 2 and quick and tensor.dtype == torch.float32 and tensor.device.type == "cpu":
        small = tensor.numpy().reshape(before, tensor.shape[dim], after)
        return torch.from_numpy(np.einsum("icj,icj->c", small, small)).double()
    if dim == 0:
        others = list(range(1, tensor.dim()))
        return (torch.linalg.vector_norm(tensor, order, dim=others) if others else tensor.abs()).double() ** order
    shape = (tensor.shape[dim], after)
    total = torch.zeros(shape, dtype=torch.float64, device=tensor.device)
    rows = tensor.reshape(before, *shape)
    for block in rows.split(max(1, _BLOCK // max(1, math.prod(shape)))):
        wide = block if block.dtype == torch.float64 else block.float()
        total += (wide.abs() if order == 1 else wide * wide).sum(0)
    return total.sum(1)


_BLOCK = 2**18
_SMALL = 2**14  # elements; here the calls take longer than the arithmetic
_FEW = 2**10  # terms of a float32 sum one after the other
Function = Callable[[Group, Weights], np.ndarray | None]


@dataclass(frozen=True, slots=True)
class Criterion:
    """A named criterion: its formula in words, and the function, which gives None for a group it cannot judge.

    `needs` is what it has to see beside the weights: nothing, "inputs" or "labels".
    """

    name: str
    formula: str
    function: Function
    needs: str = ""


CRITERIA: Registry[Criterion] = Registry("importance")


def criterion(name: str, formula: str, needs: str = "") -> Callable[[Function], Function]:
    """Register a function of (group, weights) -> (channels,) float64, larger means keep."""

    def enter(function: Function) -> Function:
        CRITERIA.add(name, Criterion(name, formula, function, needs))
        return function

    return enter


def default_criterion(groups: Sequence[Group], weights: Weights) -> str:
    """`reconstruction` where there are inputs and readers; else `bn` where every group has a BatchNorm; else `l2`.

    A criterion must be able to judge every group: scores of different ones cannot be ranked together.
    """
    seen = weights.evidence.reads if weights.evidence is not None and weights.evidence.inputs else {}
    if groups and all(any(not m.produces and m.parameter in seen for m in g.members) for g in groups):
        return "reconstruction"
    judged = all(any(m.parameter in weights.norm_scales for m in g.members) for g in groups)
    return "bn" if groups and judged else "l2"


def score(groups: Sequence[Group], weights: Weights, name: str) -> tuple[Scores, tuple[str, ...]]:
    """Score every group; also return the names of the groups that the criterion cannot judge, which then stay whole.

    Raises UsageError for an unknown criterion or one that needs what is not there, PlanError where it can judge none
    of the groups.
    """
    chosen = CRITERIA[name]
    _require(chosen, weights.evidence)
    scores: dict[str, np.ndarray] = {}
    left: list[str] = []
    for group in groups:
        got = _scored(chosen, group, weights)
        if got is None:
            left.append(group.name)
        else:
            scores[group.name] = got
    if groups and not scores:
        raise PlanError(
            f"importance {name!r} cannot judge any group: {_NOTHING.get(name, 'no weight is seen to read one')}",
            fix="use --importance l2",
        )
    return scores, tuple(left)


def _scored(chosen: Criterion, group: Group, weights: Weights) -> np.ndarray | None:
    """The group's scores, remembered with the evidence: a search cuts the same network many times."""
    if not chosen.needs or weights.evidence is None:
        return chosen.function(group, weights)
    key = f"{chosen.name}: {[(m.parameter, m.dim, m.indices.tobytes()) for m in group.members]}"
    memo = weights.evidence.memo
    if key not in memo:
        memo[key] = chosen.function(group, weights)
    found: np.ndarray | None = memo[key]
    return found


_NOTHING = {"bn": "the network has no BatchNorm"}


def _require(chosen: Criterion, evidence: Evidence | None) -> None:
    """Refuse a criterion whose inputs or labels are missing."""
    if chosen.needs and (evidence is None or not evidence.inputs):
        raise UsageError(
            f"importance {chosen.name!r} looks at what the network does, and there are no inputs",
            fix="add --calibration with a few hundred images, or use --importance l2",
        )
    if chosen.needs == "labels" and evidence is not None and evidence.labels is None:
        raise UsageError(
            f"importance {chosen.name!r} needs labels, and the calibration inputs have none",
            fix="give labelled images to --calibration, or use --importance hessian, which needs none",
        )
