"""Variants in bfloat16 where that is faster, and in float32 wherever the answer could be another.

A variant's outputs in bfloat16 differ from those in float32. How far, as a share of the spread of an image's outputs,
is measured: in every chunk of images some variants run in both. An answer in bfloat16 stands where its lead over every
other class is larger than `safety` times the largest difference seen; all other images run again in float32. So the
answers are those of float32 as long as no difference is `safety` times larger than all that were measured. Where a
later check finds one, `NarrowError` ends it, and everything runs in float32.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.evaluation.metrics import logits_of
from compress.evaluation.resumed import Bench
from compress.graph.narrow import Narrow, narrow, narrowed, supported
from compress.graph.prefix import Held

_ALIKE = 8  # variants that follow each other hesitate over the same images, and run again on all of them
_TURN = 0.618  # the golden section: checks fall on variants far from the ones before


class NarrowError(Exception):
    """bfloat16 cannot be used any more, after some chunks: all has to be computed again in float32. Says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """When to use bfloat16: not for less work than `worth` seconds, nor where it takes more than `gain` of float32.

    `tried` variants are run in both on the first chunk; `safety` is a factor on the largest difference measured.
    """

    worth: float = 20.0
    gain: float = 0.7
    tried: int = 4
    safety: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """How the variants were computed, and why, in words; where all was float32 there may still be figures of a trial.

    Of `answers` in bfloat16, `again` were computed again in float32, those with a lead of less than `bound` and what
    ran beside them. `largest` is the largest difference between bfloat16 and float32 in how far an output lies behind
    the best one, among `checked` answers; of these `differing` were others although their lead was larger than the
    bound. Leads and differences are shares of the spread of an image's outputs, the largest less the smallest.
    `loss` is the largest difference in the mean loss of a chunk, in nats.
    """

    narrow: bool
    reason: str
    answers: int = 0
    again: int = 0
    bound: float = 0.0
    largest: float = 0.0
    checked: int = 0
    differing: int = 0
    loss: float = 0.0


def together(found: Sequence[Precision]) -> Precision:
    """Return the figures of several passes as those of one."""
    return Precision(
        narrow=any(p.narrow for p in found),
        reason="; ".join(dict.fromkeys(p.reason for p in found if p.reason)),
        answers=sum(p.answers for p in found),
        again=sum(p.again for p in found),
        bound=max(p.bound for p in found),
        largest=max(p.largest for p in found),
        checked=sum(p.checked for p in found),
        differing=sum(p.differing for p in found),
        loss=max(p.loss for p in found),
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """Outputs of the original and of the variants for a chunk; `doubt` (variants, images) are to be computed again."""

    first: Any
    outs: list[Any]
    doubt: Tensor | None = None


@dataclass(slots=True)
class Arithmetic:
    """Gives the outputs of a bench's variants for images, `asked` in all; with no policy in float32.

    The networks run on `size` images at a time; `source` names the images in errors.
    """

    bench: Bench
    asked: int
    size: int
    source: str
    policy: Policy | None = None
    reason: str = ""
    compute: Narrow | None = None
    chunks: int = 0
    bound: float = 0.0
    largest: float = 0.0
    loss: float = 0.0
    answers: int = 0
    again: int = 0
    checked: int = 0
    differing: int = 0

    @property
    def found(self) -> Precision:
        """What was done so far."""
        return Precision(
            narrow=self.compute is not None,
            reason=self.reason,
            answers=self.answers,
            again=self.again,
            bound=self.bound,
            largest=self.largest,
            checked=self.checked,
            differing=self.differing,
            loss=self.loss,
        )

    def outputs(self, x: Tensor, labels: Tensor | None, tick: Callable[[int], None]) -> list[Any]:
        """Outputs of the original and of every variant for images x.

        `tick` is called after each network with the number of images it saw. Raises NarrowError, and DataError where
        the original gives no logits for the images.
        """
        targets = [None] * len(x) if labels is None else labels.split(self.size)
        parts = [self._part(y, t, tick) for y, t in zip(x.split(self.size), targets, strict=False)]
        if parts[0].doubt is None:
            return [parts[0].first, *parts[0].outs]
        outs = [torch.cat(found) for found in zip(*(part.outs for part in parts), strict=True)]
        self._repeat(x, outs, torch.cat([part.doubt for part in parts if part.doubt is not None], 1))
        return [torch.cat([part.first for part in parts]), *outs]

    def _part(self, x: Tensor, labels: Tensor | None, tick: Callable[[int], None]) -> _Part:
        first, held = self.bench.original(x)
        tick(len(x))
        classes = logits_of(first, labels, len(x), self.source).shape[1]
        known = self._tried(x, labels, held) if self.policy is not None and not self.chunks and classes > 1 else {}
        self.chunks += 1
        if self.compute is not None:
            outs, doubt = self._narrowly(x, labels, held, known, tick)
            return _Part(first, outs, doubt)
        outs = []
        for number in range(len(self.bench.variants)):
            outs.append(known[number] if number in known else self.bench.variant(number, x, held))
            tick(len(x))
        return _Part(first, outs)

    def _tried(self, x: Tensor, labels: Tensor | None, held: Mapping[int, Held]) -> dict[int, Tensor]:
        """Decide by running some variants in both ways; return what they give in float32."""
        assert self.policy is not None
        bench, count = self.bench, len(self.bench.variants)
        numbers = sorted({i * (count - 1) // max(self.policy.tried - 1, 1) for i in range(self.policy.tried)})
        known: dict[int, Tensor] = {}
        start = time.perf_counter()
        known[0] = bench.variant(0, x, held)
        if (time.perf_counter() - start) * count * self.asked / len(x) < self.policy.worth:
            self.reason = "too little work to try bfloat16"
            return known
        if not supported():
            self.reason = "this processor has no bfloat16"
            return known
        start = time.perf_counter()
        known |= {n: bench.variant(n, x, held) for n in numbers}
        wide = time.perf_counter() - start
        compute = Narrow()
        try:
            bench.brief(0, narrow(x), narrowed(held), compute)
            start = time.perf_counter()
            begun = narrowed(held)
            outs = {n: bench.brief(n, narrow(x), begun, compute) for n in numbers}
            share = (time.perf_counter() - start) / wide
        except (RuntimeError, TypeError) as error:
            self.reason = _told(error)
            return known
        self.largest = max(_difference(known[n], out) for n, out in outs.items())
        self.bound = self.policy.safety * self.largest
        for n, out in outs.items():
            self._compare(known[n], out, labels)
        doubtful = torch.stack([_doubtful(out, self.bound) for out in outs.values()]).any(0)
        expected = share + float(doubtful.double().mean())
        self.reason = f"bfloat16 takes {share:.2f} of float32's time, with what runs again {expected:.2f}"
        if expected <= self.policy.gain:
            self.compute = compute
        return known

    def _narrowly(
        self,
        x: Tensor,
        labels: Tensor | None,
        held: Mapping[int, Held],
        known: Mapping[int, Tensor],
        tick: Callable[[int], None],
    ) -> tuple[list[Tensor], Tensor]:
        """Outputs in bfloat16, in float32 for `known` variants and one more, and which are in doubt (variants, N)."""
        assert self.compute is not None
        begun, y, outs = narrowed(held), narrow(x), []
        try:
            for number in range(len(self.bench.variants)):
                outs.append(self.bench.brief(number, y, begun, self.compute))
                tick(len(x))
        except (RuntimeError, TypeError) as error:
            raise NarrowError(_told(error)) from error
        if not known:
            number = int(self.chunks * _TURN * len(outs)) % len(outs)
            known = {number: self.bench.variant(number, x, held)}
            self.largest = max(self.largest, _difference(known[number], outs[number]))
            if not self.largest <= self.bound:
                off = f"{100 * self.largest:.2g} % of their spread, beyond {100 * self.bound:.2g} %"
                raise NarrowError(f"a check found outputs in bfloat16 off by {off}")
            self._compare(known[number], outs[number], labels)
        doubt = torch.stack([_doubtful(out, self.bound) for out in outs])
        self.answers += doubt.numel()
        for number, out in known.items():
            outs[number], doubt[number] = out, False
        return outs, doubt

    def _repeat(self, x: Tensor, outs: Sequence[Tensor], doubt: Tensor) -> None:
        """Put outputs in float32 in place of those in doubt (variants, N)."""
        for begin in range(0, len(outs), _ALIKE):
            mine = doubt[begin : begin + _ALIKE]
            for rows in mine.any(0).nonzero()[:, 0].split(self.size):
                chosen = rows.expand(2) if len(rows) == 1 else rows  # code may treat a single image in another way
                _, held = self.bench.original(x[chosen], timed=False)
                for number in (begin + mine[:, rows].any(1).nonzero()[:, 0]).tolist():
                    outs[number][rows] = self.bench.variant(number, x[chosen], held)[: len(rows)]
                    self.again += len(rows)

    def _compare(self, wide: Tensor, out: Tensor, labels: Tensor | None) -> None:
        """Note how outputs (N, classes) in bfloat16, `out`, compare with those in float32."""
        sure = ~_doubtful(out, self.bound)
        self.checked += len(out)
        self.differing += int((sure & (out.argmax(1) != wide.argmax(1))).sum())
        if labels is not None:
            ours, theirs = (F.cross_entropy(y.double(), labels) for y in (out, wide))
            self.loss = max(self.loss, abs(float(ours - theirs)))


def _doubtful(out: Tensor, bound: float) -> Tensor:
    """(N,) bool: whether the largest of (N, classes) outputs leads by no more than that share of their spread."""
    first, second = out.topk(2, dim=1).values.unbind(1)
    return ~(first - second > bound * (first - out.amin(1)))


def _difference(wide: Tensor, out: Tensor) -> float:
    """How far apart `out` and `wide`, both (N, classes), have any class from the best one of `out`, of the spread."""
    error = (out - wide).double()
    most = (error - error.gather(1, out.argmax(1, keepdim=True))).abs().amax(1)
    found = float((most / (out.amax(1) - out.amin(1)).clamp_min(1e-30)).max())
    return found if math.isfinite(found) else math.inf


def _told(error: Exception) -> str:
    return f"the network does not run in bfloat16: {str(error).partition(chr(10))[0]}"
