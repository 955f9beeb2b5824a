"""Absorb what leaves into what stays: no labels, no gradients, a few hundred inputs.

A layer with weights W reads x in the uncut network, and z, of the kept channels K only, in the cut one. What it then
lacks is fitted by ridge regression over calibration inputs (see `regression`):

    whole kernels    t = W * x - W_K * z  at places of the result, from the patches of z that the kernel reads there;
                     W' = W_K + B, and b' = b + c
    channels         where a kernel reads too much for that (K times its taps): t = x - z (x at what left), from the
                     channels z; W' = W_K + W B at every tap, and b' = b + W c summed over the taps
    constants        what is the same in all inputs leaves first, in closed form (`refit.fold`); layers up to the first
                     that loses more than constants are not fitted, so that they stay exact
    streams          where whole kernels' results are added to something (see `streams`), the sum of the original is
                     wanted there, so that a layer makes up for what the stream has lost before:
                     t = (sum - sum of the cut network) / a + what is added to W_K z so far, a the slope on the way

Layers are treated in the order in which they run, each before it runs: what a layer reads has been through the layers
already repaired, so that their remaining error is corrected as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.graph.analyse import Analysis
from compress.graph.modules import tensors_of
from compress.graph.watch import Call
from compress.recovery.consumers import consumers
from compress.recovery.refit import (
    Layer,
    Sample,
    Wanted,
    fold,
    in_stream,
    layer_of,
    learn,
    plain,
    settle,
    steady,
    write,
)
from compress.recovery.samples import Rows, at, chosen
from compress.recovery.streams import Join, followed

ROWS = 16_384  # places a layer is sampled at, over all passes
ROWS_PER_FEATURE = 4  # more of them where it reads much
WIDE = 8_192  # inputs of a matrix that are too many: the regression would take gigabytes
HELD_OUT = 0.2
SPLIT = 5  # batches of fewer inputs are held out as a whole
ROUNDS = 2  # where inputs come in several batches: early ones met layers that were not repaired yet


@dataclass(frozen=True, slots=True)
class Compensated:
    """One layer that took something up: errors of its result on held-out inputs, relative to the result's energy."""

    name: str
    ridge: float
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Absorbed:
    """What `absorb` did: the layers it changed in order, the inputs it saw, and wall time in seconds.

    `left_out` are layers that lost inputs and read too many for a regression.
    """

    layers: tuple[Compensated, ...]
    inputs: int
    seconds: float
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Turn:
    """One pass: its number, how many there are, its share of all inputs, and its seed."""

    number: int
    count: int
    share: float
    seed: int

    @property
    def fits(self) -> bool:
        """Layers are fitted anew when there is four times as much data, and in the end."""
        done = self.number + 1
        return done == self.count or done in (1, 4, 16, 64, 256, 1024)

    def training(self, rows: Rows) -> Tensor:
        """Boolean (rows,): what is not held out."""
        if rows.images >= SPLIT:
            return rows.training(HELD_OUT)
        return torch.full_like(rows.image, (self.number + 1) % SPLIT != 0 or self.count < SPLIT, dtype=torch.bool)


def absorb(
    original: nn.Module,
    cut: nn.Module,
    analysis: Analysis,
    dead: np.ndarray,
    inputs: Iterable[Tensor],
    *,
    submodule: str | None = None,
    shortened: bool = False,
    seed: int = 0,
    advance: Callable[[int, int], None] | None = None,
) -> Absorbed:
    """Repair the weights of `cut` in place, so that every layer's result is as near to the original's as it can be.

    `inputs` are batches, batch first; the last fifth of each (of few inputs: every fifth batch) is held out to choose
    the ridges. Several batches are gone through twice. `analysis` and `dead` are those of the cut, of the part at
    `submodule` where only that was cut; where `cut` lacks layers of the original, which the analysis then does not know
    either, `shortened` has every layer fitted that reads something else than before. Parameters keep their names and
    shapes; `original` is never touched. A layer without a bias gives its constant to the batch norm behind it; where
    there is none either, it is fitted through the origin.
    """
    start = time.perf_counter()
    parts = original.get_submodule(submodule or ""), cut.get_submodule(submodule or "")
    before, after = tensors_of(parts[0]), tensors_of(parts[1])
    found = [c for c in consumers(analysis, dead) if c.name in after]
    wide = {c.name: c for c in found if not c.convolution and after[c.name].shape[c.inputs] > WIDE}
    layers = {c.name: layer_of(c, before) for c in found if c.name not in wide}
    batches = list(inputs)
    total, rounds = sum(len(batch) for batch in batches), ROUNDS if len(batches) > 1 else 1
    networks = ((original, before), (cut, after))
    with torch.no_grad():
        for number in range(rounds * len(batches)):
            place = number % len(batches)
            if place == 0:
                for layer in layers.values():
                    layer.forget()
            batch = batches[place]
            turn = _Turn(place, len(batches), len(batch) / total, seed + number)
            _Pass(networks, layers, turn, apart=shortened).run(batch)
            if advance is not None:
                advance(number + 1, rounds * len(batches))
    done = [(name, layer.fit) for name, layer in layers.items() if layer.fit is not None]
    report = tuple(Compensated(name, f.ridge, f.before, f.after) for name, f in done)
    left_out = tuple(name for name, c in wide.items() if c.kept is not None)
    return Absorbed(report, total, time.perf_counter() - start, left_out)


@dataclass(slots=True)
class _Pass:
    """Both networks run over a batch; the cut one is repaired layer by layer as it runs."""

    networks: tuple[tuple[nn.Module, dict[str, Tensor]], tuple[nn.Module, dict[str, Tensor]]]
    layers: dict[str, Layer]
    turn: _Turn
    apart: bool  # whether anything has been lost so far but constants

    def run(self, batch: Tensor) -> None:
        """Learn what is wanted from the original, then repair."""
        ways = ((self.remember, self.remember_sum), (self.repair, self.repair_sum))
        for (module, tensors), (beside, joined) in zip(self.networks, ways, strict=True):
            followed(module, batch, {name: tensors[name] for name in self.layers}, beside, joined)
        for layer in self.layers.values():
            for use in list(layer.waiting):  # the cut network's graph hides the sum: the layer's own result will do
                wanted, z, _ = layer.waiting.pop(use)
                self._learn(layer, wanted, plain(layer, wanted, z))
            layer.wanted.clear()

    def remember(self, name: str, use: int, x: Tensor, call: Call) -> Any:
        """Run a layer of the original, and keep the rows that the cut layer is fitted to."""
        layer, result = self.layers[name], call()
        steady(layer, x)
        seen = result if layer.whole else x
        features = layer.left.shape[2] * (layer.left.shape[3] if layer.whole else 1)
        limit = int(max(ROWS, ROWS_PER_FEATURE * features) * self.turn.share / layer.consumer.uses)
        rows = chosen(len(seen), tuple(seen.shape[2:]), max(limit, 64), self.turn.seed, seen.device)
        layer.wanted[use] = Wanted(rows, at(seen, rows))
        return result

    def remember_sum(self, join: Join) -> None:
        """Keep the sum that a layer's result comes to, at the same rows."""
        layer, use = self.layers[join.path.name], join.path.use
        total = join.shaped(join.path.result) if layer.whole else None
        if total is not None:
            wanted = layer.wanted[use]
            layer.wanted[use] = Wanted(wanted.rows, wanted.result, at(total, wanted.rows))

    def repair(self, name: str, use: int, z: Tensor, call: Call) -> Any:
        """Refit a layer of the cut network on what it now reads, before it runs; or later, where its sum is known."""
        layer = self.layers[name]
        wanted = layer.wanted.pop(use, None)
        if wanted is None:
            return call()
        exact = fold(layer) and not self.apart
        if exact:
            settle(layer)
            write(layer, self.networks[1][1])
            return call()
        self.apart = True
        if wanted.total is not None:
            result = call()
            layer.waiting[use] = wanted, z, result
            return result
        self._learn(layer, wanted, plain(layer, wanted, z))
        return call()

    def repair_sum(self, join: Join) -> None:
        """Refit a layer to the sum that its result comes to, and correct the sum."""
        layer = self.layers[join.path.name]
        if join.path.use not in layer.waiting:
            return
        wanted, z, y = layer.waiting.pop(join.path.use)
        if join.shaped(y) is None:
            self._learn(layer, wanted, plain(layer, wanted, z))
        else:
            self._learn(layer, wanted, in_stream(layer, wanted, join, y, z, self.networks[1][1]))
        join.again()

    def _learn(self, layer: Layer, wanted: Wanted, sample: Sample) -> None:
        learn(layer, sample, self.turn.training(wanted.rows), fits=self.turn.fits)
        write(layer, self.networks[1][1])
