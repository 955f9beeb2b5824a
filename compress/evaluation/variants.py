"""Measure many variants of one network on the same images, sharing what they have in common.

Images come in chunks. On every chunk the original runs once, whole, and is held where the variants part from it; then
every variant runs from there. So memory is that of one chunk, and an interruption leaves every variant measured on the
same, randomly chosen, images.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset

from compress.core.errors import DataError
from compress.core.progress import Progress
from compress.evaluation.data import Data
from compress.evaluation.metrics import logits_of
from compress.graph.prefix import Compute, DivergedError, Held, Resume, capture, recorded, resume, split
from compress.graph.residual import Leaving
from compress.graph.trace import Trace, quiet_module, set_mode

CHUNK = 128  # images


@dataclass(frozen=True, slots=True)
class Variant:
    """A network that is the original up to operator `at`; `leaving` are branches of the original that it goes without.

    Operators are numbered as in `recorded` of the original.
    """

    module: nn.Module
    at: int
    leaving: Leaving | None = None


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


@dataclass(slots=True)
class Bench:
    """A network and its variants on their way through the images."""

    module: nn.Module
    run: Trace
    variants: Sequence[Variant]
    compute: Compute | None = None
    full: float = 0.0
    computed: int = 0
    skipped: int = 0
    diverged: set[int] = field(default_factory=set)

    def outputs(self, x: Tensor) -> Iterator[Tensor]:
        """What the original and then every variant give for a chunk of images."""
        splits = {v.at: split(self.run, v.at) for v in self.variants}
        start = time.perf_counter()
        try:
            out, held = capture(self.module, (x,), self.run, list({s.at: s for s in splits.values()}.values()))
        except DivergedError:
            out, held = None, {}
        if out is None:
            start = time.perf_counter()
            out = _whole(self.module, x)
        self.full += time.perf_counter() - start
        yield out
        for number, variant in enumerate(self.variants):
            yield self._variant(number, variant, x, held.get(splits[variant.at].at))

    def _variant(self, number: int, variant: Variant, x: Tensor, held: Held | None) -> Any:
        if held is not None and number not in self.diverged:
            leaving = variant.leaving or Leaving(frozenset(), {})
            mode = Resume(held, self.compute, leaving.operators, leaving.joins)
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


def _whole(module: nn.Module, x: Tensor) -> Any:
    with quiet_module(module):
        set_mode(module, train=False)
        return module(x)


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
    compute: Compute | None = None,
    name: str = "evaluate",
) -> Measured:
    """Evaluate `module`, whose output is (N, classes), and all its variants on `data`.

    `limit` takes that many images, drawn with `seed`; `fixed` is the only batch size that the network takes. A
    KeyboardInterrupt ends it early, with what was measured until then. Raises DataError where images and network do
    not fit.
    """
    start = time.perf_counter()
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed)).tolist()[:limit]
    if fixed is not None:
        order = order[: len(order) // fixed * fixed]
    loader = DataLoader(Subset(data.dataset, order), batch_size=fixed or CHUNK)
    run = run or recorded(module, (torch.stack([data.dataset[i][0] for i in order[: fixed or 2]]),))
    bench = Bench(module, run, variants, compute)
    sums = [_Sums() for _ in range(len(variants) + 1)]
    complete, seen = True, 0
    steps = len(loader) * len(sums)
    with told.stage(name, steps) as advance:
        done = 0
        try:
            for images, labels in loader:
                chunk = [_Sums() for _ in sums]
                targets = labels if data.labelled else None
                answers: Tensor | None = None
                for one, out in zip(chunk, bench.outputs(images), strict=True):
                    logits = logits_of(out, labels if data.labelled else None, len(images), data.name)
                    answers = logits.argmax(1) if answers is None else answers
                    one.add(logits, answers, targets)
                    done += 1
                    advance(done, steps)
                _merge(sums, chunk)
                seen += len(images)
        except KeyboardInterrupt:
            if not seen:
                raise
            complete = False
    tallies = [s.tally(labelled=data.labelled) for s in sums]
    return Measured(
        original=tallies[0],
        variants=tuple(tallies[1:]),
        images=seen,
        asked=len(order),
        complete=complete,
        costing=Costing(
            full=bench.full, total=time.perf_counter() - start, computed=bench.computed, skipped=bench.skipped
        ),
        notes=_notes(bench),
    )


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
