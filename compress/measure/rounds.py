"""Any number of networks in interleaved rounds: each round runs all of them, in an order that changes every time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from compress.core.errors import UsageError
from compress.measure.latency import FEWEST_ROUNDS, SPELL, WARMUP_SHARE, Clock, warm_up
from compress.measure.runners import Runner


def interleaved(
    runners: Sequence[Runner],
    *,
    rounds: int = 30,
    max_seconds: float = 20.0,
    progress: Callable[[int, int], None] | None = None,
    clock: Clock = time.perf_counter,
) -> list[list[np.ndarray]]:
    """Return, for each runner, an array of seconds for each round: one number a pass.

    Every runner is warmed up until its passes take equally long. A round then runs each of them as often as fills
    20 ms, one after the other; which begins moves on by one a round, and every other round runs backwards. Rounds end
    early when `max_seconds` have gone by, but never before five. Raises UsageError for fewer than five rounds.
    """
    if rounds < FEWEST_ROUNDS:
        raise UsageError(f"{rounds} rounds are too few for an interval", fix=f"use at least {FEWEST_ROUNDS}")
    start = clock()
    warm = [warm_up(runner, clock, WARMUP_SHARE * max_seconds / len(runners)) for runner in runners]
    counts = [max(1, math.ceil(SPELL / seconds)) if seconds > 0 else 1 for seconds in warm]
    found: list[list[np.ndarray]] = [[] for _ in runners]
    done = 0
    while done < rounds and (done < FEWEST_ROUNDS or clock() - start < max_seconds):
        for at in order(len(runners), done):
            found[at].append(np.array([one_pass(runners[at], clock) for _ in range(counts[at])]))
        done += 1
        if progress is not None:
            progress(done, rounds)
    return found


def order(number: int, turn: int) -> list[int]:
    """Return who runs when in round `turn`: shifted by one a round, and backwards every other round.

    >>> [order(3, turn) for turn in range(4)]
    [[0, 1, 2], [0, 2, 1], [2, 0, 1], [2, 1, 0]]
    """
    shifted = [(turn + at) % number for at in range(number)]
    return shifted[::-1] if turn % 2 else shifted


def one_pass(runner: Runner, clock: Clock) -> float:
    """Return the seconds of one pass, by the device's clock where the runner has one."""
    if runner.seconds is not None:
        return runner.seconds(1)
    start = clock()
    runner.run()
    return clock() - start
