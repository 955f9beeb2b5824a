"""Second moments of what a layer reads, streamed, and the ridge regression that they allow.

    t  (rows, g, c)  what is missing        z  (rows, g, k)  what is there, for each of g groups
    B = S_tz (S_zz + lambda)^-1,  c = mean t - B mean z        (through the origin: raw moments, and c = 0)

lambda is the one of a series, relative to the mean of S_zz's diagonal, with the least error on held-out rows, where
errors are weighed by G (g, c, c):  E[e^T G e],  e = t - B z - c.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

RIDGES = (1e-7, 1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 10.0)
FIRST = 1e-2  # where the walk along the series begins


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over rows in float64: z (g, k), t (g, c), z z^T (g, k, k), t z^T (g, c, k), t^T G t, and the energy."""

    rows: int
    z: Tensor
    t: Tensor
    zz: Tensor
    tz: Tensor
    missing: float
    energy: float

    def __add__(self, other: Moments) -> Moments:
        """Moments of both sets of rows."""
        return Moments(
            self.rows + other.rows,
            self.z + other.z,
            self.t + other.t,
            self.zz + other.zz,
            self.tz + other.tz,
            self.missing + other.missing,
            self.energy + other.energy,
        )


def moments(z: Tensor, t: Tensor, gram: Tensor, energy: float) -> Moments:
    """Sum over the rows of z (rows, g, k) and t (rows, g, c), both float64."""
    z, t = z.transpose(0, 1), t.transpose(0, 1)  # (g, rows, *)
    missing = float(((t @ gram) * t).sum())
    return Moments(z.shape[1], z.sum(1), t.sum(1), z.mT @ z, t.mT @ z, missing, energy)


@dataclass(frozen=True, slots=True)
class Fit:
    """mix (g, c, k) is B, shift (g, c) is c; errors are held-out, relative to the energy of the held-out rows."""

    mix: Tensor
    shift: Tensor
    ridge: float
    before: float
    after: float


def fit(train: Moments, held: Moments, gram: Tensor, *, affine: bool, first: float = FIRST) -> Fit:
    """Regress what is missing on what is there; with `affine` around the means, otherwise through the origin.

    `first` is the ridge of `RIDGES` to begin with.
    """
    mean_z, mean_t = train.z / train.rows, train.t / train.rows
    if not affine:
        mean_z, mean_t = torch.zeros_like(mean_z), torch.zeros_like(mean_t)
    zz, tz = _around(train, mean_z, mean_t)
    held_zz, held_tz = _around(held, mean_z, mean_t)
    away = held.missing / held.rows - _inner(2 * held.t / held.rows - mean_t, gram, mean_t)
    level = zz.diagonal(dim1=1, dim2=2).mean(1)[:, None, None].clamp_min(torch.finfo(torch.float64).tiny)
    identity = torch.eye(zz.shape[1], dtype=zz.dtype, device=zz.device)

    def attempt(ridge: float) -> tuple[float, Tensor]:
        """Fit with this ridge; return the held-out error and the solution."""
        factor, failed = torch.linalg.cholesky_ex(zz + ridge * level * identity)
        if bool(failed.any()):
            return float("inf"), torch.zeros_like(tz)
        mix = torch.cholesky_solve(tz.mT, factor).mT
        weighed = gram @ mix
        return away - 2 * float((weighed * held_tz).sum()) + float((weighed * (mix @ held_zz)).sum()), mix

    ridge, error, mix = _walk(attempt, RIDGES.index(first) if first in RIDGES else RIDGES.index(FIRST))
    scale = held.rows / held.energy if held.energy > 0 else 0.0
    mix, shift = _final(train + held, ridge, affine=affine) or (mix, mean_t - (mix @ mean_z[..., None])[..., 0])
    return Fit(mix, shift, ridge, held.missing / held.rows * scale, error * scale)


def _final(every: Moments, ridge: float, *, affine: bool) -> tuple[Tensor, Tensor] | None:
    """The solution from all rows, with the ridge found; None where the matrix is singular."""
    mean_z, mean_t = every.z / every.rows, every.t / every.rows
    if not affine:
        mean_z, mean_t = torch.zeros_like(mean_z), torch.zeros_like(mean_t)
    zz, tz = _around(every, mean_z, mean_t)
    level = zz.diagonal(dim1=1, dim2=2).mean(1)[:, None, None].clamp_min(torch.finfo(torch.float64).tiny)
    identity = torch.eye(zz.shape[1], dtype=zz.dtype, device=zz.device)
    factor, failed = torch.linalg.cholesky_ex(zz + ridge * level * identity)
    if bool(failed.any()):
        return None
    mix = torch.cholesky_solve(tz.mT, factor).mT
    return mix, mean_t - (mix @ mean_z[..., None])[..., 0]


def _walk(attempt: Callable[[float], tuple[float, Tensor]], at: int) -> tuple[float, float, Tensor]:
    """Walk along the series from entry `at`, downhill; the error has one valley."""
    start = at
    error, mix = attempt(RIDGES[at])
    for step in (1, -1):
        if step < 0 and at > start:
            break  # it went up the series, so that what lies below has been left already
        while 0 <= at + step < len(RIDGES):
            next_error, next_mix = attempt(RIDGES[at + step])
            if next_error >= error:
                break
            at, error, mix = at + step, next_error, next_mix
    return RIDGES[at], error, mix


def _inner(one: Tensor, gram: Tensor, two: Tensor) -> float:
    return float((one * (gram @ two[..., None])[..., 0]).sum())


def _around(sums: Moments, mean_z: Tensor, mean_t: Tensor) -> tuple[Tensor, Tensor]:
    """E[z z^T] and E[t z^T] around the given means."""
    n = sums.rows
    z, t = sums.z / n, sums.t / n

    def outer(a: Tensor, b: Tensor) -> Tensor:
        return a[..., :, None] * b[..., None, :]

    zz = sums.zz / n - outer(mean_z, z) - outer(z, mean_z) + outer(mean_z, mean_z)
    tz = sums.tz / n - outer(mean_t, z) - outer(t, mean_z) + outer(mean_t, mean_z)
    return zz, tz
