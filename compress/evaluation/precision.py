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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.core.errors import first_line
from compress.evaluation.metrics import logits_of
from compress.evaluation.resumed import Bench
from compress.graph.narrow import Narrow, narrow, narrowed, supported
from compress.graph.prefix import Held

R = TypeVar("R")

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

    narrow: bool = False
    reason: str = ""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A bench's variants for images, `asked` in all; with no policy in float32.

    The networks run on `size` images at a time; `source` names the images in errors.
    """

    bench: Bench
    asked: int
    size: int
    source: str
    policy: Policy | None = None


@dataclass(frozen=True, slots=True)
class Way:
    """How the next images are computed, by `compute` or in float32, and what was `found` in `chunks` chunks so far."""

    found: Precision = Precision()
    compute: Narrow | None = None
    chunks: int = 0

    def after(self, step: Precision) -> Way:
        """Add what a step found."""
        return replace(self, found=together([self.found, step]))


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Images with their labels, and what the original came to on them where the variants part from it."""

    x: Tensor
    labels: Tensor | None
    held: Mapping[int, Held]


@dataclass(frozen=True, slots=True)
class _Part:
    """Outputs of the original and of the variants for a chunk; `doubt` (variants, images) are to be computed again."""

    first: Any
    outs: list[Any]
    doubt: Tensor | None = None


def outputs(
    work: Work, x: Tensor, labels: Tensor | None, way: Way, tick: Callable[[int], None]
) -> tuple[list[Any], Way]:
    """Return the outputs of the original and of every variant for images x, and the way for the next ones.

    `tick` is called after each network with the number of images it saw. Raises NarrowError, and DataError where
    the original gives no logits for the images.
    """
    targets = [None] * len(x) if labels is None else labels.split(work.size)
    parts: list[_Part] = []
    for y, t in zip(x.split(work.size), targets, strict=False):
        part, way = _part(work, y, t, way, tick)
        parts.append(part)
    doubts = [part.doubt for part in parts if part.doubt is not None]
    if not doubts:
        return [parts[0].first, *parts[0].outs], way
    outs = [torch.cat(found) for found in zip(*(part.outs for part in parts), strict=True)]
    again = _repeat(work, x, outs, torch.cat(doubts, 1))
    return [torch.cat([part.first for part in parts]), *outs], way.after(Precision(again=again))


def _part(work: Work, x: Tensor, labels: Tensor | None, way: Way, tick: Callable[[int], None]) -> tuple[_Part, Way]:
    """Run everything on one chunk; on the first, decide how."""
    bench = work.bench
    first, held = bench.original(x)
    tick(len(x))
    classes = logits_of(first, labels, len(x), work.source).shape[1]
    chunk, known = _Chunk(x, labels, held), dict[int, Tensor]()
    if work.policy is not None and not way.chunks and classes > 1:
        way, known = _tried(work, work.policy, chunk)
    way = replace(way, chunks=way.chunks + 1)
    outs: list[Any] = []
    if way.compute is None:
        for number in range(len(bench.variants)):
            outs.append(known[number] if number in known else bench.variant(number, x, held))
            tick(len(x))
        return _Part(first, outs), way
    try:
        for out in _briefly(bench, range(len(bench.variants)), chunk, way.compute):
            outs.append(out)
            tick(len(x))
    except (RuntimeError, TypeError) as error:
        raise NarrowError(_told(error)) from error
    if not known:
        way, known = _checked(bench, chunk, outs, way)
    doubt = torch.stack([_doubtful(out, way.found.bound) for out in outs])
    for number, out in known.items():
        outs[number], doubt[number] = out, False
    return _Part(first, outs, doubt), way.after(Precision(answers=doubt.numel()))


def _tried(work: Work, policy: Policy, chunk: _Chunk) -> tuple[Way, dict[int, Tensor]]:
    """Decide by running some variants in both ways; return how to go on, and what they give in float32."""
    bench, count = work.bench, len(work.bench.variants)
    numbers = sorted({i * (count - 1) // max(policy.tried - 1, 1) for i in range(policy.tried)})
    seconds, known = _timed(lambda: {0: bench.variant(0, chunk.x, chunk.held)})
    if seconds * count * work.asked / len(chunk.x) < policy.worth:
        return Way(Precision(reason="too little work to try bfloat16")), known
    if not supported():
        return Way(Precision(reason="this processor has no bfloat16")), known
    wide, known = _timed(lambda: {n: bench.variant(n, chunk.x, chunk.held) for n in numbers})
    compute = Narrow()
    try:
        list(_briefly(bench, [0], chunk, compute))  # casts the parameters, once for all chunks
        seconds, outs = _timed(lambda: list(_briefly(bench, numbers, chunk, compute)))
    except (RuntimeError, TypeError) as error:
        return Way(Precision(reason=_told(error))), known
    pairs = [(known[n], out) for n, out in zip(numbers, outs, strict=True)]
    largest = max(_difference(*pair) for pair in pairs)
    bound = policy.safety * largest
    doubtful = torch.stack([_doubtful(out, bound) for out in outs]).any(0)
    share = seconds / wide
    expected = share + float(doubtful.double().mean())
    found = replace(
        together([_compared(*pair, bound, chunk.labels) for pair in pairs]),
        narrow=expected <= policy.gain,
        reason=f"bfloat16 takes {share:.2f} of float32's time, with what runs again {expected:.2f}",
        bound=bound,
        largest=largest,
    )
    return Way(found, compute if found.narrow else None), known


def _timed(run: Callable[[], R]) -> tuple[float, R]:
    start = time.perf_counter()
    found = run()
    return time.perf_counter() - start, found


def _briefly(bench: Bench, numbers: Iterable[int], chunk: _Chunk, compute: Narrow) -> Iterator[Tensor]:
    """Outputs of variants in bfloat16, as float32."""
    begun, x = narrowed(chunk.held), narrow(chunk.x)
    for number in numbers:
        yield bench.brief(number, x, begun, compute)


def _checked(bench: Bench, chunk: _Chunk, outs: Sequence[Tensor], way: Way) -> tuple[Way, dict[int, Tensor]]:
    """Run one variant in float32 as well, and return what it gives; NarrowError where bfloat16 is off by too much."""
    number = int(way.chunks * _TURN * len(outs)) % len(outs)
    wide, bound = bench.variant(number, chunk.x, chunk.held), way.found.bound
    largest = max(way.found.largest, _difference(wide, outs[number]))
    if not largest <= bound:
        off = f"{100 * largest:.2g} % of their spread, beyond {100 * bound:.2g} %"
        raise NarrowError(f"a check found outputs in bfloat16 off by {off}")
    return way.after(replace(_compared(wide, outs[number], bound, chunk.labels), largest=largest)), {number: wide}


def _repeat(work: Work, x: Tensor, outs: Sequence[Tensor], doubt: Tensor) -> int:
    """Put outputs in float32 in place of those in doubt (variants, N); return how many were computed."""
    again = 0
    for begin in range(0, len(outs), _ALIKE):
        mine = doubt[begin : begin + _ALIKE]
        for rows in mine.any(0).nonzero()[:, 0].split(work.size):
            chosen = rows.expand(2) if len(rows) == 1 else rows  # code may treat a single image in another way
            _, held = work.bench.original(x[chosen], timed=False)
            for number in (begin + mine[:, rows].any(1).nonzero()[:, 0]).tolist():
                outs[number][rows] = work.bench.variant(number, x[chosen], held)[: len(rows)]
                again += len(rows)
    return again


def _compared(wide: Tensor, out: Tensor, bound: float, labels: Tensor | None) -> Precision:
    """How outputs (N, classes) in bfloat16, `out`, compare with those in float32."""
    differing = ~_doubtful(out, bound) & (out.argmax(1) != wide.argmax(1))
    losses = [] if labels is None else [float(F.cross_entropy(y.double(), labels)) for y in (out, wide)]
    loss = max(losses, default=0.0) - min(losses, default=0.0)
    return Precision(checked=len(out), differing=int(differing.sum()), loss=loss)


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
    return f"the network does not run in bfloat16: {first_line(error)}"
