"""Choose channels again so that the user's own code can follow: tied or pinned where it parts from the graph.

Code may compute with the number of its channels: a softmax scale from a head's width, a reshape by the width of another
tensor. Some choices of channels it can follow all the same, at little loss, and then the user keeps the own class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
from torch import nn

from compress.core.errors import PlanError
from compress.graph.analyse import Analysis
from compress.graph.costs import macs
from compress.graph.instep import agreed_at, evened_at, held_at, in_step, pinned_at, tied_at
from compress.surgery.agreement import Progress
from compress.surgery.cut import sizes_after
from compress.surgery.deliver import Delivered, Refused, own_class

ATTEMPTS = 6  # choices tried in one way
ENOUGH = 0.6  # what one must remove of what the free choice does
NEARLY_ALL = 0.95  # so much, and no other way is tried
STEPPED = "heads leave together with the channels they read, which its code needs"
EVENED = "pieces that the code cuts a tensor into by its size lose the same channels"
TIED = "layers make as many channels as they read, which its code needs"
PINNED = "channels stay whose number its code computes with"

C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class Adapted(Generic[C]):
    """A choice of channels under more ties and pins, and the own class by it, or why there is none.

    `notes` are the ties and pins in words; `choice` is what the chooser says of it, `dead` its labels.
    """

    analysis: Analysis
    own: Delivered | Refused
    choice: C
    dead: np.ndarray
    notes: tuple[str, ...]

    @property
    def parts(self) -> Progress | None:
        """Where the code parts from the graph; None where it follows, or fails by its result alone."""
        return self.own.parts if isinstance(self.own, Refused) else None

    @property
    def delivered(self) -> Delivered:
        """The own class, told with the ties and pins that it took."""
        assert isinstance(self.own, Delivered)
        return replace(self.own, why="; ".join(dict.fromkeys([*self.notes, *filter(None, [self.own.why])])))

    def removed(self) -> int:
        """MACs that leave."""
        trace = self.analysis.traces[0]
        return macs(trace) - macs(trace, sizes_after(self.analysis, self.dead))


def adapted(
    module: nn.Module,
    example: tuple[Any, ...],
    free: Adapted[C],
    choose: Callable[[Analysis], tuple[C, np.ndarray]],
    *,
    verify: bool,
) -> Adapted[C] | None:
    """The own class by another choice of channels than the `free` one; None where none is found that removes enough.

    `choose` gives a choice and its dead labels, or raises PlanError. First channels are pinned, with attention heads in
    step with what they read where that brings the code further; then layers are tied to what they read as well. Of the
    ways that the code follows, the one that removes most is taken.
    """

    def tried(analysis: Analysis, notes: tuple[str, ...]) -> Adapted[C] | None:
        """Choose under the ties and pins of `analysis`; None where nothing can leave."""
        try:
            choice, dead = choose(analysis)
        except PlanError:
            return None
        own = own_class(module, example, analysis, dead, verify=verify)
        return Adapted(analysis, own, choice, dead, notes)

    def follows(start: Adapted[C] | None, *, tie: bool) -> Adapted[C] | None:
        """Go on from `start` until the code follows; None where it does not, or where too little is removed then."""
        now = start
        for _ in range(ATTEMPTS):
            if now is None or now.parts is None:
                break
            further = _further(now, now.parts, tie=tie)
            now = None if further is None else tried(further[0], (*now.notes, further[1]))
        fits = now is not None and isinstance(now.own, Delivered) and now.removed() >= ENOUGH * free.removed()
        return now if fits else None

    stepped = in_step(free.analysis)
    heads = None if stepped is None else tried(stepped, (STEPPED,))
    found: list[Adapted[C]] = []
    for start, tie in ((_better(free, heads), False), (heads, True), (free, True)):
        end = follows(start, tie=tie)
        found += [] if end is None else [end]
        if end is not None and end.removed() >= NEARLY_ALL * free.removed():
            break
    return max(found, key=Adapted.removed, default=None)


def _better(free: Adapted[C], heads: Adapted[C] | None) -> Adapted[C]:
    """Whichever brings the code further."""
    if heads is None or free.parts is None:
        return free
    further = heads.parts is None or heads.parts.matched > free.parts.matched
    return heads if further else free


def _further(now: Adapted[C], parts: Progress, *, tie: bool) -> tuple[Analysis, str] | None:
    """Tie or pin channels where the code parts from the graph; None where there is nothing left to."""
    even = evened_at(now.analysis, parts.op)
    if even is not None:
        return even, EVENED
    tied = tied_at(now.analysis, parts.last) if tie and not parts.numbers else None
    if tied is not None:
        return tied, TIED
    pinned = pinned_at(now.analysis, parts.op, width_only=parts.numbers, dims=parts.dims)
    if pinned is None and not parts.numbers:
        pinned = held_at(now.analysis, parts.last) or agreed_at(now.analysis, parts.op)
    return None if pinned is None else (pinned, PINNED)
