"""By what is lost at the channel's readers after the best linear compensation from the channels that stay.

With W what reads the channels and S their covariance, removing the set B costs

    tr(W_B ((S^-1)_BB)^-1 W_B^T) / tr(W S W^T)

of the result's variance. Channels leave a group one by one, the cheapest first (summed over the readers); the inverse
and G = W^T W, which the compensation changes as well, follow by updates of rank one and two:

    cost[c] = G[c, c] / P[c, c],  P = S^-1;   v = P[:, c] / P[c, c];   P <- P - P[:, c] v^T
    W <- W - W[:, c] v^T, hence  G <- G - g v^T - v g^T + G[c, c] v v^T,  g = G[:, c]

Updates are collected and applied as one matrix product, so that 2,048 channels take seconds.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from compress.core.types import Group, Member
from compress.importance.activity import readers
from compress.importance.criteria import Weights, criterion
from compress.importance.evidence import Reads

RIDGE = 1e-4  # of the mean variance: what fewer inputs than channels leave undetermined
PENDING = 64  # updates that wait for the next matrix product


class _Reader:
    """One weight that reads the group: P and G at the group's own indices, downdated lazily."""

    def __init__(self, inverse: Tensor, gram: Tensor, energy: float) -> None:
        self.inverse, self.gram, self.energy = inverse, gram, energy
        self.p, self.g = inverse.diagonal().clone(), gram.diagonal().clone()
        # Pending updates, a column each: P[:, c] / sqrt(P[c, c]);  v;  g - G[c, c] v / 2.
        self.u, self.v, self.a = (inverse.new_zeros(len(inverse), PENDING) for _ in range(3))
        self.pending = 0

    def costs(self) -> Tensor:
        """Relative cost of removing each input channel now, (c,)."""
        found: Tensor = self.g.clamp_min(0) / self.p.clamp_min(1e-300) / self.energy
        return found

    def remove(self, c: int) -> None:
        """Take input channel c out, compensated by the rest."""
        n = self.pending
        u, v, a = self.u[:, :n], self.v[:, :n], self.a[:, :n]
        p = self.inverse[:, c] - u @ u[c]
        g = self.gram[:, c] - a @ v[c] - v @ a[c]
        pivot = float(p[c])
        if pivot <= 0:
            return
        self.u[:, n] = p / pivot**0.5
        self.v[:, n] = now = p / pivot
        self.a[:, n] = half = g - 0.5 * g[c] * now
        self.p -= p * now
        self.g -= 2 * half * now
        self.pending += 1
        if self.pending == PENDING:
            self.inverse -= self.u @ self.u.T
            both = self.a @ self.v.T
            self.gram -= both + both.T
            self.pending = 0


def eliminate(parts: list[tuple[_Reader, Tensor]], channels: int) -> np.ndarray:
    """Remove all channels greedily; return each one's cost when it left, never falling. Indices are (channels, m)."""
    left = torch.ones(channels, dtype=torch.bool)
    scores, highest = np.zeros(channels), 0.0
    for _ in range(channels):
        total = torch.zeros(channels, dtype=torch.float64)
        for reader, indices in parts:
            total += reader.costs()[indices].sum(1).cpu()
        total[~left] = torch.inf
        c = int(total.argmin())
        highest = max(highest, float(total[c]))
        scores[c] = highest
        left[c] = False
        for reader, indices in parts:
            for index in indices[c].tolist():
                reader.remove(index)
    return scores


@criterion(
    "reconstruction", "error at the channel's readers after the best linear compensation from what stays", "inputs"
)
def reconstruction(group: Group, weights: Weights) -> np.ndarray | None:
    """s[c] = the relative output error that the channel's leaving adds, in greedy order; see above.

    Optimal brain surgeon (Hassibi & Stork, NIPS 1992) on a layer's inputs, as in He et al., arXiv:1707.06168.
    """
    parts: list[tuple[_Reader, Tensor]] = []
    for member, reads in readers(group, weights):
        taken = torch.from_numpy(member.indices)
        own = torch.arange(taken.numel()).reshape(taken.shape)
        for matrix, inverse, energy in _prepared(member, reads, weights):
            mine = matrix[taken.flatten()]
            block = inverse[taken.flatten()][:, taken.flatten()]
            parts.append((_Reader(block, mine @ mine.T, energy), own))
    return eliminate(parts, group.size) if parts else None


def _prepared(member: Member, reads: Reads, weights: Weights) -> list[tuple[Tensor, Tensor, float]]:
    """For every group of a convolution: W^T (c, outputs * taps), S^-1 (c, c) and tr(W S W^T); kept for other groups."""
    assert weights.evidence is not None
    key = f"{member.parameter}:{member.dim}"
    if key not in weights.evidence.memo:
        weight = weights.tensors[member.parameter].detach().double().movedim(member.dim, 0).flatten(1)
        size = len(weight)
        groups = len(reads.covariance) // size
        split = weight.reshape(size, groups, -1)
        found = []
        for k in range(groups):
            part = reads.covariance[k * size : (k + 1) * size, k * size : (k + 1) * size]
            level = part.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
            eye = torch.eye(size, dtype=part.dtype, device=part.device)
            matrix = split[:, k]
            energy = float((matrix * (part @ matrix)).sum()) or 1.0
            found.append((matrix, torch.linalg.inv(part + RIDGE * level * eye), energy))
        weights.evidence.memo[key] = found
    kept: list[tuple[Tensor, Tensor, float]] = weights.evidence.memo[key]
    return kept
