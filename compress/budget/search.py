"""The smallest share of the MACs that holds a bound which only a measurement can tell: few, well-chosen tries.

Accuracy falls as channels leave, slowly at first and then fast. Between the smallest share that held and the largest
that did not, the next try is where the line through the two best known points crosses the bound (regula falsi), kept
away from both ends so that the bracket shrinks whatever the curve. The line is drawn in logarithms, of the share and of
what is lost: what is lost grows about as a power of what has left.

One cut is luckier than another: accuracy over the share is a rough line, and a cut that fails by little need not be the
last that could hold. Tries that are left go a little below it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# How many cuts are tried; the bracket, as a ratio of shares, below which no more are; the mildest cut worth a try.
TRIES = 8
CLOSE = 1.03
MILDEST = 0.97
FIRST = 0.5
# Without a failure yet, the next share is this much smaller than the last, at most and at least.
BOLD, CAREFUL = 0.5, 0.8
# With no share that holds yet, tries above this one go to the mildest at once; none is below the least.
NEARLY, LEAST = 0.7, 1e-3
SAME = 1e-3
# A failure that loses no more than so many times what is allowed is a near one; how much smaller a share is tried then.
NEAR, BELOW = 1.5, 1.06
# Of what is allowed; whoever loses less, or gains, counts as this.
LITTLE = 0.05
# How near to the ends of the bracket the next try may lie, as a share of it.
AWAY = 0.2


@dataclass(frozen=True, slots=True)
class Tried:
    """A share of the MACs that was tried, and how far its result is inside the bound; negative is outside."""

    share: float
    margin: float


def search(
    measure: Callable[[float], Tried | None],
    slack: float,
    *,
    floor: float = 0.0,
    tries: int = TRIES,
    more: Callable[[], bool] = lambda: True,
) -> str:
    """Try shares of the MACs until the smallest that holds is bracketed; return why it stopped, in words.

    `measure` cuts to at most the given share and says what was reached, with the share that is really left; None where
    no cut goes that far. `slack` is the margin of the uncut network. `floor` is a share below which none is tried.
    `more` is asked before every try whether there is time for it.
    """
    known = [Tried(1.0, slack)]
    slack = max(slack, 1e-9)
    asked: list[float] = []
    least = max(floor, LEAST)
    for _ in range(tries):
        share = _next(known, least, slack)
        if share is None or any(abs(share - other) < SAME for other in asked):
            nothing = not any(t.margin >= 0 for t in known[1:])
            return (
                "even the mildest cut does not hold it" if nothing else "the smallest that holds is known nearly enough"
            )
        if not more():
            return "the time budget ended"
        asked.append(share)
        found = measure(share)
        known.append(found or Tried(share, -math.inf))
        if found is not None and found.margin >= 0 and share <= floor:
            return "the budget of MACs was reached, and the bound holds there"
    return f"{tries} cuts were tried"


def _next(known: Sequence[Tried], least: float, slack: float) -> float | None:
    """Where to try next; None where the bracket is narrow enough, and nothing below it is worth a try."""
    top = min(t.share for t in known if t.margin >= 0)
    failed = max((t.share for t in known if t.margin < 0 and t.share < top), default=None)
    if failed is None:  # the smallest share so far holds: go down, boldly, but not beyond what the line foretells
        if top <= least * CLOSE:
            return None
        guess = FIRST if len(known) == 1 else min(max(_crossing(known, slack) or 0.0, BOLD * top), CAREFUL * top)
        return max(guess, least)
    low, high = math.log(max(failed, least)), math.log(top)
    if high - low < math.log(CLOSE):
        return _below([t for t in known if t.share < top], least, slack)
    guess = math.log(_crossing(known, slack) or math.exp((low + high) / 2))
    inside = min(max(guess, low + AWAY * (high - low)), high - AWAY * (high - low))
    return MILDEST if top == 1.0 and math.exp(inside) > NEARLY else math.exp(inside)


def _below(failures: Sequence[Tried], least: float, slack: float) -> float | None:
    """A little below the near failures, which are the largest; None where that is known to fail by more."""
    down = sorted(failures, key=lambda t: -t.share)
    for tried, other in zip(down, [*(t.share for t in down[1:]), 0.0], strict=True):
        if _lost(tried, slack) > math.log(NEAR):
            return None
        if tried.share / BELOW > max(other * CLOSE, least):
            return tried.share / BELOW
    return None


def _lost(tried: Tried, slack: float) -> float:
    """The logarithm of what is lost over what may be: 0 at the bound, negative inside; next to nothing counts as that.

    >>> [round(_lost(Tried(0.5, margin), 1.0), 2) for margin in (0.0, 0.5, -1.0, 2.0)]
    [0.0, -0.69, 0.69, -3.0]
    """
    return math.log(max((slack - tried.margin) / slack, LITTLE))


def _crossing(known: Sequence[Tried], slack: float) -> float | None:
    """Where the line through the two measured points nearest to the bound crosses it.

    None where what is lost does not fall with the share.
    """
    measured = sorted((t for t in known if math.isfinite(t.margin)), key=lambda t: abs(_lost(t, slack)))[:2]
    if len(measured) < 2:
        return None
    low, high = sorted(measured, key=lambda t: t.share)
    more, less = _lost(low, slack), _lost(high, slack)
    if low.share == high.share or more <= less:
        return None
    x, y = math.log(low.share), math.log(high.share)
    return math.exp(min(max(x + more * (y - x) / (more - less), math.log(LEAST)), 0.0))
