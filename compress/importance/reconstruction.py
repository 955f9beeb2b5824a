"""By what is lost at the channel's readers after the best linear compensation from the channels that stay.

With W what reads the channels and S their covariance, removing the set B leaves an error of the result with covariance

    W_B ((S^-1)_BB)^-1 W_B^T

It is weighed by how the network's answer leans on the result, F of `slopes`: 1/2 tr(F W_B ((S^-1)_BB)^-1 W_B^T) is an
estimate in nats (or of the relative squared error) that can be compared over the whole network. Where slopes cannot
be had, it is the error relative to the result's own variance, tr(W_B ((S^-1)_BB)^-1 W_B^T) / tr(W S W^T).

Channels leave a group one by one, the cheapest first (summed over the readers); the inverse and G = W^T F W, which the
compensation changes as well, follow by updates of rank one and two:

    cost[c] = G[c, c] / P[c, c],  P = S^-1;   v = P[:, c] / P[c, c];   P <- P - P[:, c] v^T
    W <- W - W[:, c] v^T, hence  G <- G - g v^T - v g^T + G[c, c] v v^T,  g = G[:, c]

Updates are collected and applied as one matrix product, so that 2,048 channels take seconds. A channel that is several
inputs wide leaves as a block B, with cost tr(G_BB (P_BB)^-1) and the same updates in blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from compress.core.members import Member
from compress.core.types import Group
from compress.importance.activity import readers
from compress.importance.criteria import Weights, criterion
from compress.importance.evidence import Evidence, Reads

RIDGE = 1e-4  # of the mean variance: what fewer inputs than channels leave undetermined
PENDING = 64  # updates that wait for the next matrix product
EVEN = 0.03  # of the slopes' mean square: what a sample of slopes leaves out counts a little


class Reader(Protocol):
    """One weight that reads a group."""

    def costs(self) -> Tensor:
        """Cost of removing each channel now, (channels,)."""

    def remove(self, c: int) -> None:
        """Take channel c out, compensated by the rest."""


class Narrow:
    """Channels that are one input wide: P and G at the group's own inputs, downdated lazily."""

    def __init__(self, inverse: Tensor, gram: Tensor, energy: float) -> None:
        """`inverse` is P and `gram` is G, (channels, channels) float64; costs are relative to `energy`."""
        self.inverse, self.gram, self.energy = inverse, gram, energy
        self.p, self.g = inverse.diagonal().clone(), gram.diagonal().clone()
        # Pending updates, a column each: P[:, c] / sqrt(P[c, c]);  v;  g - G[c, c] v / 2.
        self.u, self.v, self.a = (inverse.new_zeros(len(inverse), PENDING) for _ in range(3))
        self.pending = 0

    def costs(self) -> Tensor:
        """Relative cost of removing each channel now, (channels,)."""
        found: Tensor = self.g.clamp_min(0) / self.p.clamp_min(1e-300) / self.energy
        return found

    def remove(self, c: int) -> None:
        """Take channel c out, compensated by the rest."""
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


class Wide:
    """Channels that are m inputs wide (heads, the pixels of a flattened image): the same, in blocks."""

    def __init__(self, inverse: Tensor, gram: Tensor, energy: float, channels: int) -> None:
        """As `Narrow`, with (channels * m, channels * m) matrices, a channel's inputs side by side."""
        self.inverse, self.gram, self.energy = inverse, gram, energy
        self.own = torch.arange(len(inverse), device=inverse.device).reshape(channels, -1)

    def costs(self) -> Tensor:
        """tr(G_cc (P_cc)^-1) of every channel's blocks, (channels,)."""
        rows, columns = self.own[:, :, None], self.own[:, None, :]
        p, g = self.inverse[rows, columns], self.gram[rows, columns]
        level = p.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-300)[:, None, None]
        eye = torch.eye(p.shape[1], dtype=p.dtype, device=p.device)
        solved = torch.linalg.solve(p / level + 1e-12 * eye, g / level)
        found: Tensor = solved.diagonal(dim1=1, dim2=2).sum(1).clamp_min(0) / self.energy
        return found

    def remove(self, c: int) -> None:
        """Take channel c out, compensated by the rest."""
        own = self.own[c]
        p, g = self.inverse[:, own], self.gram[:, own]
        v = torch.linalg.solve(p[own], p, left=False)  # P[:, B] (P_BB)^-1
        both = g @ v.mT
        self.gram = self.gram - both - both.mT + v @ g[own] @ v.mT
        self.inverse = self.inverse - v @ p.mT
        self.inverse[own, own] = 1.0  # they are gone: any number that keeps their block regular


class Alone:
    """A weight that reads too many inputs for their covariance: a channel costs its own variance, uncompensated."""

    def __init__(self, fixed: Tensor) -> None:
        """`fixed` (channels,) is what every channel costs."""
        self.fixed = fixed

    def costs(self) -> Tensor:
        """The same at any time, (channels,)."""
        return self.fixed

    def remove(self, c: int) -> None:
        """Nothing else changes."""


def eliminate(parts: Sequence[Reader], channels: int) -> np.ndarray:
    """Remove all channels greedily; return each one's cost when it left, never falling."""
    left = torch.ones(channels, dtype=torch.bool)
    scores, highest = np.zeros(channels), 0.0
    for _ in range(channels):
        total = torch.zeros(channels, dtype=torch.float64)
        for reader in parts:
            total += reader.costs().cpu()
        total[~left] = torch.inf
        c = int(total.argmin())
        highest = max(highest, float(total[c]))
        scores[c] = highest
        left[c] = False
        for reader in parts:
            reader.remove(c)
    return scores


@criterion(
    "reconstruction", "error at the channel's readers after the best linear compensation from what stays", "inputs"
)
def reconstruction(group: Group, weights: Weights) -> np.ndarray | None:
    """s[c] = what the channel's leaving adds to the cost above, in greedy order; (channels,) float64.

    Optimal brain surgeon (Hassibi & Stork, NIPS 1992) on a layer's inputs, as in He et al., arXiv:1707.06168, with the
    Kronecker-factored curvature of Wang et al., arXiv:1905.05934. Needs inputs, and no labels.
    """
    parts: list[Reader] = []
    for member, reads in readers(group, weights):
        taken = torch.from_numpy(member.indices).flatten()
        if reads.covariance.dim() == 1:
            parts.append(_alone(member, reads, weights))
            continue
        for matrix, inverse, energy in _prepared(member, reads, weights):
            mine, block = matrix[taken], inverse[taken][:, taken]
            if member.indices.shape[1] == 1:
                parts.append(Narrow(block, mine @ mine.T, energy))
            else:
                parts.append(Wide(block, mine @ mine.T, energy, group.size))
    return eliminate(parts, group.size) if parts else None


def _alone(member: Member, reads: Reads, weights: Weights) -> Alone:
    """1/2 F-weighted variance of what each channel gives to the result, over the result's own without slopes."""
    assert weights.evidence is not None
    weight = weights.tensors[member.parameter].detach().double().movedim(member.dim, 0).flatten(1)  # (c, outputs)
    slopes, energy = _slopes(weights.evidence), 2.0
    if slopes is not None:
        weight = weight @ _root(slopes[member.parameter])
    each = weight.square().sum(1) * reads.covariance
    if slopes is None:
        energy = float(each.sum()) or 1.0
    return Alone(each[torch.from_numpy(member.indices).to(each.device)].sum(1) / energy)


def _prepared(member: Member, reads: Reads, weights: Weights) -> list[tuple[Tensor, Tensor, float]]:
    """For every group of a convolution: F^1/2 W as (c, outputs * taps), S^-1 (c, c) and the energy; kept for others."""
    evidence = weights.evidence
    assert evidence is not None
    key = f"{member.parameter}:{member.dim}"
    if key not in evidence.memo:
        weight = weights.tensors[member.parameter].detach().double().movedim(member.dim, 0)
        size = len(weight)
        groups = len(reads.covariance) // size
        split = weight.reshape(size, groups, weight.shape[1] // groups, -1)
        slopes = _slopes(evidence)
        found = []
        for k in range(groups):
            part = reads.covariance[k * size : (k + 1) * size, k * size : (k + 1) * size]
            level = part.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
            eye = torch.eye(size, dtype=part.dtype, device=part.device)
            matrix, energy = split[:, k], 2.0
            if slopes is None:
                energy = float((matrix.flatten(1) * (part @ matrix.flatten(1))).sum()) or 1.0
            else:
                own = slice(k * split.shape[2], (k + 1) * split.shape[2])
                matrix = torch.einsum("cot,op->cpt", matrix, _root(slopes[member.parameter][own, own]))
            found.append((matrix.flatten(1), torch.linalg.inv(part + RIDGE * level * eye), energy))
        evidence.memo[key] = found
    kept: list[tuple[Tensor, Tensor, float]] = evidence.memo[key]
    return kept


def _slopes(evidence: Evidence) -> dict[str, Tensor] | None:
    """The slopes at every weight, None where one is missing: costs of two kinds cannot be compared."""
    found = evidence.slopes
    return found if all(name in found for name in evidence.reads) else None


def remarks(importance: str | None, evidence: Evidence | None) -> tuple[str, ...]:
    """What has to be said of a criterion on this evidence: that reconstruction had to do without slopes, and why."""
    if importance != "reconstruction" or evidence is None or _slopes(evidence) is not None:
        return ()
    missing = [name for name in evidence.reads if name not in evidence.slopes]
    why = evidence.memo.get("no slopes") or f"no gradient comes back to {', '.join(missing[:3])}"
    what = "importance 'reconstruction' weighs errors relative to each layer's own result"
    return (f"{what}, not by how the network's answer leans on it, for which there are no slopes: {why}",)


def _root(slopes: Tensor) -> Tensor:
    """The symmetric root of F plus a little of the identity, (outputs, outputs)."""
    level = slopes.diagonal().mean().clamp_min(torch.finfo(slopes.dtype).tiny)
    values, vectors = torch.linalg.eigh(slopes + EVEN * level * torch.eye(len(slopes)).to(slopes))
    root: Tensor = vectors * values.clamp_min(0).sqrt() @ vectors.mT
    return root
