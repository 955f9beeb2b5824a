"""Measure many variants of one network on the same images, sharing what they have in common.

Images come in chunks. On every chunk the original runs once, whole, and is held where the variants part from it; then
every variant runs from there. So memory is that of one chunk, and an interruption leaves every variant measured on the
same, randomly chosen, images.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset

from compress.core.progress import Progress
from compress.evaluation.data import Data
from compress.evaluation.metrics import logits_of
from compress.evaluation.precision import NarrowError, Policy, Precision, Way, Work, outputs
from compress.evaluation.resumed import Bench, Variant
from compress.graph.prefix import recorded
from compress.graph.trace import Trace

__all__ = ["CHUNK", "Costing", "Measured", "Policy", "Precision", "Tally", "Variant", "measure"]

CHUNK = 128  # images
TOGETHER = 4  # chunks
MEMORY = 2**28  # bytes of images that they may have


@dataclass(frozen=True, slots=True)
class Tally:
    """What a network reached: fractions in [0, 1], loss in nats; top1 and loss None without labels.

    `agreement` is the fraction of images on which it answers as the original does.
    """

    images: int
    top1: float | None
    loss: float | None
    agreement: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Costing:
    """What the measurement took, in seconds: `full` is one evaluation of the whole original on all images.

    `total` is everything, the original included. `computed` and `skipped` count operators of all variants.
    """

    full: float
    total: float
    computed: int
    skipped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The original and every variant; `complete` is False where the run was interrupted, after `images` images."""

    original: Tally
    variants: tuple[Tally, ...]
    images: int
    asked: int
    complete: bool
    costing: Costing
    precision: Precision
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Sums:
    images: int = 0
    right: int = 0
    loss: float = 0.0
    same: int = 0

    def add(self, logits: Tensor, answers: Tensor, labels: Tensor | None) -> None:
        """Count the answers to one chunk of images, beside the original's and the labels."""
        best = logits.argmax(1)
        self.images += len(logits)
        self.same += int((best == answers).sum())
        if labels is not None:
            self.right += int((best == labels).sum())
            self.loss += float(F.cross_entropy(logits.double(), labels, reduction="sum"))

    def tally(self, *, labelled: bool) -> Tally:
        count = max(self.images, 1)
        top1, loss = (self.right / count, self.loss / count) if labelled else (None, None)
        return Tally(self.images, top1, loss, self.same / count)


def measure(
    module: nn.Module,
    variants: Sequence[Variant],
    data: Data,
    told: Progress,
    *,
    run: Trace | None = None,
    limit: int | None = None,
    fixed: int | None = None,
    seed: int = 0,
    policy: Policy | None = None,
    name: str = "evaluate",
) -> Measured:
    """Evaluate `module`, whose output is (N, classes), and all its variants on `data`.

    `limit` takes that many images, drawn with `seed`; `fixed` is the only batch size that the network takes. `policy`
    allows bfloat16 where the answers are float32's (see `evaluation/precision.py`). A KeyboardInterrupt ends it early,
    with what was measured until then. Raises DataError where images and network do not fit.
    """
    start = time.perf_counter()
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed)).tolist()[:limit]
    if fixed is not None:
        order = order[: len(order) // fixed * fixed]
    run = run or recorded(module, (torch.stack([data.dataset[i][0] for i in order[: fixed or 2]]),))
    work = Work(
        bench=Bench(module, run, variants),
        asked=len(order),
        size=fixed or CHUNK,
        source=data.name,
        policy=policy if fixed is None else None,
    )
    try:
        sums, found, complete = _through(work, data, order, Way(), told, name)
    except NarrowError as error:
        work = replace(work, bench=Bench(module, run, variants), policy=None)
        sums, found, complete = _through(work, data, order, Way(Precision(reason=str(error))), told, name)
    tallies = [s.tally(labelled=data.labelled) for s in sums]
    bench = work.bench
    return Measured(
        original=tallies[0],
        variants=tuple(tallies[1:]),
        images=tallies[0].images,
        asked=len(order),
        complete=complete,
        costing=Costing(
            full=bench.full, total=time.perf_counter() - start, computed=bench.computed, skipped=bench.skipped
        ),
        precision=found,
        notes=_notes(bench),
    )


def _through(
    work: Work, data: Data, order: Sequence[int], way: Way, told: Progress, name: str
) -> tuple[list[_Sums], Precision, bool]:
    """Go through the images; return the sums of the original and all variants, how they were computed, and if all."""
    sums = [_Sums() for _ in range(len(work.bench.variants) + 1)]
    done, steps = 0, len(order) * len(sums)
    with told.stage(name, steps) as advance:

        def tick(count: int) -> None:
            nonlocal done
            done += count
            advance(done, steps)

        try:
            for outs, labels, later in _chunks(work, data, order, way, tick):
                chunk = [_Sums() for _ in sums]
                answers: Tensor | None = None
                for one, out in zip(chunk, outs, strict=True):
                    logits = logits_of(out, labels, len(outs[0]), data.name)
                    answers = logits.argmax(1) if answers is None else answers
                    one.add(logits, answers, labels)
                _merge(sums, chunk)
                way = later
        except KeyboardInterrupt:
            if not sums[0].images:
                raise
            return sums, way.found, False
    return sums, way.found, True


def _chunks(
    work: Work, data: Data, order: Sequence[int], way: Way, tick: Callable[[int], None]
) -> Iterator[tuple[list[Any], Tensor | None, Way]]:
    """All outputs, with labels and the way so far; in bfloat16, where few images of a chunk run again, of several."""
    chunks = 1
    for chosen in (order[: work.size], order[work.size :]):
        for images, labels in DataLoader(Subset(data.dataset, chosen), batch_size=chunks * work.size):
            targets = labels if data.labelled else None
            outs, way = outputs(work, images, targets, way, tick)
            yield outs, targets, way
            fitting = MEMORY // images.nbytes
        if way.compute is not None:
            chunks = max(min(TOGETHER, fitting), 1)


def _merge(sums: Sequence[_Sums], chunk: Sequence[_Sums]) -> None:
    for total, one in zip(sums, chunk, strict=True):
        total.images += one.images
        total.right += one.right
        total.loss += one.loss
        total.same += one.same


def _notes(bench: Bench) -> tuple[str, ...]:
    lost = len(bench.diverged)
    text = f"{lost} of {len(bench.variants)} variants were run whole: their code does not begin as the original's"
    return (text,) if lost else ()
