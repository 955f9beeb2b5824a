"""Is the second network faster, and by how much? Paired rounds, so that the machine's drift hits both alike.

One round times both networks, one right after the other, in an order that alternates. With b_i and a_i the seconds of
a pass before and after in round i, the answer is the median of r_i = a_i / b_i, and its 95 % interval comes from
drawing the rounds anew, with replacement: slow spells of the machine cancel in every r_i.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from statistics import median

import numpy as np

from compress.core.errors import UsageError
from compress.core.types import Speedup
from compress.measure.runners import Runner

# Shorter spells than this are timer and scheduler noise, in seconds.
SPELL = 0.02
# Warm-up ends when this many passes in a row are within this factor of each other.
STEADY_PASSES = 3
STEADY_FACTOR = 1.1
WARMUP_PASSES = 50
WARMUP_SHARE = 0.2
FEWEST_ROUNDS = 5
DRAWS = 2000
SEED = 0

Clock = Callable[[], float]


def compare(
    before: Runner,
    after: Runner,
    *,
    rounds: int = 30,
    max_seconds: float = 20.0,
    progress: Callable[[int, int], None] | None = None,
    clock: Clock = time.perf_counter,
) -> Speedup:
    """Measure `after` against `before` in interleaved rounds; both must run at the same batch and thread count.

    Each runner is warmed up until its passes take equally long, then every round runs each of them as often as fills
    20 ms. Rounds end early when `max_seconds` have gone by, but never before five. `progress` is told (rounds done,
    rounds planned); `clock` returns seconds. Raises UsageError for fewer than five rounds, or runners that differ in
    runtime, device, threads or batch.
    """
    _require_comparable(before, after, rounds)
    start = clock()
    # Both are warm before either is counted: the first may slow down once the second has its threads and caches.
    warm = [warm_up(runner, clock, WARMUP_SHARE * max_seconds / 2) for runner in (before, after)]
    counts = [max(1, math.ceil(SPELL / seconds)) if seconds > 0 else 1 for seconds in warm]
    pairs: list[tuple[float, float]] = []
    while len(pairs) < rounds and (len(pairs) < FEWEST_ROUNDS or clock() - start < max_seconds):
        pairs.append(_round(before, after, counts, clock, swapped=len(pairs) % 2 == 1))
        if progress is not None:
            progress(len(pairs), rounds)
    ratios = np.array([b / a for a, b in pairs])
    low, high = interval(ratios)
    return Speedup(
        runtime=after.runtime,
        device=after.device,
        threads=after.threads,
        batch=after.batch,
        before=median(pair[0] for pair in pairs),
        after=median(pair[1] for pair in pairs),
        ratio=float(np.median(ratios)),
        low=low,
        high=high,
        rounds=len(pairs),
    )


def interval(ratios: np.ndarray) -> tuple[float, float]:
    """Return the 2.5 % and 97.5 % quantiles of the bootstrap distribution of the median of `ratios`, shape (n,).

    >>> interval(np.array([0.5, 0.5, 0.5]))
    (0.5, 0.5)
    """
    drawn = np.random.default_rng(SEED).integers(0, len(ratios), (DRAWS, len(ratios)))
    low, high = np.quantile(np.median(ratios[drawn], axis=1), (0.025, 0.975))
    return float(low), float(high)


def _require_comparable(before: Runner, after: Runner, rounds: int) -> None:
    if rounds < FEWEST_ROUNDS:
        raise UsageError(f"{rounds} rounds are too few for an interval", fix=f"use at least {FEWEST_ROUNDS}")
    for what in ("runtime", "device", "threads", "batch"):
        left, right = getattr(before, what), getattr(after, what)
        if left != right:
            raise UsageError(f"{before.label} and {after.label} differ in {what}: {left} and {right}")


def _seconds(runner: Runner, count: int, clock: Clock) -> float:
    """Return the seconds of one pass, as the mean over `count` passes in a row."""
    if runner.seconds is not None:
        return runner.seconds(count) / count
    start = clock()
    for _ in range(count):
        runner.run()
    return (clock() - start) / count


def warm_up(runner: Runner, clock: Clock, budget: float) -> float:
    """Run until the passes take equally long, or `budget` seconds are over; return the seconds of a warm pass."""
    start = clock()
    passes: list[float] = []
    while len(passes) < WARMUP_PASSES:
        passes.append(_seconds(runner, 1, clock))
        last = passes[-STEADY_PASSES:]
        if len(last) == STEADY_PASSES and max(last) <= STEADY_FACTOR * min(last):
            break
        if clock() - start >= budget:
            break
    return median(passes[-STEADY_PASSES:])


def _round(before: Runner, after: Runner, counts: list[int], clock: Clock, *, swapped: bool) -> tuple[float, float]:
    """Return the seconds of a pass before and after, timed one right after the other."""
    if swapped:
        second = _seconds(after, counts[1], clock)
        return _seconds(before, counts[0], clock), second
    return _seconds(before, counts[0], clock), _seconds(after, counts[1], clock)
