"""A network and its variants on their way through the images: the original whole, each variant from where it parts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from compress.core.errors import DataError
from compress.graph.modules import quiet_module, set_mode
from compress.graph.narrow import Narrow, narrow_biases
from compress.graph.prefix import Compute, DivergedError, Held, Resume, Split, capture, resume, split
from compress.graph.residual import Leaving
from compress.graph.trace import Trace


@dataclass(frozen=True, slots=True)
class Variant:
    """A network that is the original up to operator `at`; `leaving` are branches of the original that it goes without.

    Operators are numbered as in `recorded` of the original.
    """

    module: nn.Module
    at: int
    leaving: Leaving | None = None


@dataclass(slots=True)
class Bench:
    """Runs the original and its variants; `full` are the seconds of the original, `computed` and `skipped` operators.

    `diverged` are the variants whose code does not begin as the original's: they run whole.
    """

    module: nn.Module
    run: Trace
    variants: Sequence[Variant]
    full: float = 0.0
    computed: int = 0
    skipped: int = 0
    diverged: set[int] = field(default_factory=set)
    splits: dict[int, Split] = field(init=False)

    def __post_init__(self) -> None:
        """Find where each variant can begin."""
        self.splits = {v.at: split(self.run, v.at) for v in self.variants}

    def original(self, x: Tensor, *, timed: bool = True) -> tuple[Any, Mapping[int, Held]]:
        """What the original gives for images (N, ...), and by position of a split what variants begin with."""
        start = time.perf_counter()
        try:
            out, held = capture(self.module, (x,), self.run, [*{s.at: s for s in self.splits.values()}.values()])
        except DivergedError:
            start = time.perf_counter()
            out, held = _whole(self.module, x), {}
        self.full += time.perf_counter() - start if timed else 0.0
        return out, held

    def variant(self, number: int, x: Tensor, held: Mapping[int, Held], compute: Compute | None = None) -> Any:
        """What a variant gives for the images from which the original came to `held`."""
        variant = self.variants[number]
        begun = held.get(self.splits[variant.at].at)
        if begun is not None and number not in self.diverged:
            leaving = variant.leaving or Leaving(frozenset(), {})
            mode = Resume(begun, compute, leaving.operators, leaving.joins)
            try:
                out = resume(variant.module, (x,), mode)
            except DivergedError:
                self.diverged.add(number)
            else:
                self.computed, self.skipped = self.computed + mode.computed, self.skipped + mode.skipped
                return out
        if variant.leaving is not None:
            raise DataError("the network does other operators on other images: no branch can be left out")
        self.diverged.add(number)
        return _whole(variant.module, x)

    def brief(self, number: int, x: Tensor, held: Mapping[int, Held], how: Narrow) -> Tensor:
        """What a variant gives in bfloat16, as float32; `x` and `held` are narrow. RuntimeError where that fails."""
        with narrow_biases(self.variants[number].module, how.cast):
            out: Tensor = self.variant(number, x, held, how)
        return out.float()


def _whole(module: nn.Module, x: Tensor) -> Any:
    with quiet_module(module):
        set_mode(module, train=False)
        return module(x.clone())
