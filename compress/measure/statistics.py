"""What durations say: percentiles, and a ratio that is only given where it can be told from 1.

Round i times every network once, so r_i = a_i / b_i compares two passes under the same state of the machine. The ratio
is the median of the r_i; its 95 % interval is the bootstrap's. Rounds also hold a *control*: the first file loaded a
second time. Where the control is off by c = |log median(b'_i / b_i)|, two loads of one file differ by that much without
any reason in the file, so both ends of every interval are moved outwards by exp(c).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from compress.measure.latency import interval

# An interval that holds 1 and is wider than this from end to end says more about the machine than about the networks.
NOISY = 1.2


class Outcome(StrEnum):
    """What a comparison came to."""

    FASTER = "faster"
    SLOWER = "slower"
    SAME = "not distinguishable"
    NOISY = "not distinguishable: the machine was too noisy"


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedRatio:
    """Latency against another network's: the median of the rounds' ratios and its 95 % interval.

    `control` is the ratio of the other network's second load to its first, by which the interval was widened; None
    where no control ran.
    """

    against: str
    ratio: float
    low: float
    high: float
    control: float | None = None

    @property
    def outcome(self) -> Outcome:
        """What may be claimed.

        >>> PairedRatio(against="a", ratio=0.5, low=0.4, high=0.6).outcome
        <Outcome.FASTER: 'faster'>
        >>> PairedRatio(against="a", ratio=0.99, low=0.97, high=1.02).outcome
        <Outcome.SAME: 'not distinguishable'>
        """
        if self.high < 1:
            return Outcome.FASTER
        if self.low > 1:
            return Outcome.SLOWER
        return Outcome.NOISY if self.high > NOISY * self.low else Outcome.SAME

    def __str__(self) -> str:
        """Give the ratio with its interval, or the words where the interval holds 1."""
        if self.outcome in {Outcome.FASTER, Outcome.SLOWER}:
            return f"{self.ratio:.3f} [{self.low:.3f}, {self.high:.3f}]"
        return f"{self.outcome} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Seconds of single passes: how long the middle one, and the slow ones, took."""

    p50: float
    p90: float
    p99: float
    passes: int


def spread(rounds: Sequence[np.ndarray]) -> Spread:
    """Return the percentiles over all passes of all rounds, in seconds.

    >>> spread([np.array([1.0, 3.0]), np.array([2.0])]).p50
    2.0
    """
    every = np.concatenate([np.asarray(r, dtype=float) for r in rounds])
    p50, p90, p99 = np.quantile(every, (0.5, 0.9, 0.99))
    return Spread(p50=float(p50), p90=float(p90), p99=float(p99), passes=len(every))


def paired(
    against: str, before: Sequence[np.ndarray], after: Sequence[np.ndarray], control: Sequence[np.ndarray] | None = None
) -> PairedRatio:
    """Compare two networks whose passes in round i are `before[i]` and `after[i]`, in seconds.

    `control` are passes of the first network's second load in the same rounds.
    """
    ratios = _ratios(before, after)
    low, high = interval(ratios)
    second = None if control is None else float(np.median(_ratios(before, control)))
    widen = 1.0 if second is None else math.exp(abs(math.log(second)))
    return PairedRatio(
        against=against, ratio=float(np.median(ratios)), low=low / widen, high=high * widen, control=second
    )


def _ratios(before: Sequence[np.ndarray], after: Sequence[np.ndarray]) -> np.ndarray:
    # Within a round the median pass stands for the network: a pass that was interrupted does not count.
    return np.array([np.median(a) / np.median(b) for b, a in zip(before, after, strict=True)])
