"""Absorb what leaves into what stays: no labels, no gradients, a few hundred inputs.

A layer with weights W reads x in the uncut network, and z, of the kept channels K only, in the cut one. What it then
lacks is fitted by ridge regression over calibration inputs (see `regression`):

    whole kernels    t = W * x - W_K * z  at places of the result, from the patches of z that the kernel reads there;
                     W' = W_K + B, and b' = b + c
    channels         where a kernel reads too much for that (K times its taps): t = x - z (x at what left), from the
                     channels z; W' = W_K + W B at every tap, and b' = b + W c summed over the taps

Layers are treated in the order in which they run, each before it runs: what a layer reads has been through the layers
already repaired, so that their remaining error is corrected as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.graph.analyse import Analysis
from compress.graph.trace import tensors_of
from compress.graph.watch import watched
from compress.recovery.consumers import Consumer, consumers
from compress.recovery.regression import FIRST, Fit, Moments, fit, moments
from compress.recovery.samples import Rows, at, chosen, inside, patches

ROWS = 16_384  # places a layer is sampled at, over all passes
ROWS_PER_FEATURE = 4  # more of them where it reads much
FEATURES = 2_304  # what a regression may read: 256 channels through a 3 x 3 kernel
HELD_OUT = 0.2
SPLIT = 5  # batches of fewer inputs are held out as a whole
NOTHING = 1e-12  # of the result's energy: rounding, nothing to absorb
CONSTANT = 1e-9  # of the result's energy: so little variation is rounding


@dataclass(frozen=True, slots=True)
class Compensated:
    """One layer that took something up: errors of its result on held-out inputs, relative to the result's energy."""

    name: str
    ridge: float
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Absorbed:
    """What `absorb` did: the layers it changed in order, the inputs it saw, and wall time in seconds."""

    layers: tuple[Compensated, ...]
    inputs: int
    seconds: float


@dataclass(slots=True)
class _Layer:
    """A consumer in work. Weights are (g, outputs, channels, taps) in float64: `weight` reads x, `left` reads z."""

    consumer: Consumer
    weight: Tensor
    left: Tensor
    whole: bool
    gram: Tensor
    bias: Tensor | None
    base: Tensor | None
    waiting: dict[int, tuple[Rows, Tensor]] = field(default_factory=dict)
    train: Moments | None = None
    held: Moments | None = None
    fit: Fit | None = None


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
    seed: int = 0,
    advance: Callable[[int, int], None] | None = None,
) -> Absorbed:
    """Repair the weights of `cut` in place, so that every layer's result is as near to the original's as it can be.

    `inputs` are batches, batch first; the last fifth of each (of few inputs: every fifth batch) is held out to choose
    the ridges. `analysis` and `dead`
    are those of the cut, of the part at `submodule` where only that was cut. Parameters keep their names and shapes;
    `original` is never touched. A layer without a bias gives its constant to the batch norm behind it; where there is
    none either, it is fitted through the origin.
    """
    start = time.perf_counter()
    parts = original.get_submodule(submodule or ""), cut.get_submodule(submodule or "")
    before, after = tensors_of(parts[0]), tensors_of(parts[1])
    layers = {c.name: _layer(c, before) for c in consumers(analysis, dead) if c.name in after}
    batches = list(inputs)
    total = sum(len(batch) for batch in batches)
    with torch.no_grad():
        for number, batch in enumerate(batches):
            both = [(original, before), (cut, after)]
            turn = _Turn(number, len(batches), len(batch) / total, seed + number)
            _learn_from(both, layers, batch, turn)
            if advance is not None:
                advance(number + 1, len(batches))
    done = [(name, layer.fit) for name, layer in layers.items() if layer.fit is not None]
    report = tuple(Compensated(name, f.ridge, f.before, f.after) for name, f in done)
    return Absorbed(report, total, time.perf_counter() - start)


def _layer(consumer: Consumer, before: Mapping[str, Tensor]) -> _Layer:
    weight = _picked(before[consumer.name].detach().double(), consumer.made, 1 - consumer.inputs)
    if consumer.inputs == 0:
        weight = weight.transpose(0, 1)
    weight = weight.flatten(2) if weight.dim() > 2 else weight[..., None]
    weight = weight.reshape(consumer.groups, -1, *weight.shape[1:])
    left = _picked(weight, consumer.kept, 2)
    matrix = not consumer.convolution
    whole = matrix or (consumer.sliding is not None and left.shape[2] * left.shape[3] <= FEATURES)
    if whole:
        identity = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
        gram = identity.expand(consumer.groups, -1, -1)
    else:
        gram = torch.einsum("goct,godt->gcd", weight, weight)

    def kept(name: str | None) -> Tensor | None:
        return None if name is None else _picked(before[name].detach().double(), consumer.made, 0)

    return _Layer(consumer, weight, left, whole, gram, kept(consumer.bias), kept(consumer.shift))


def _picked(tensor: Tensor, indices: np.ndarray | None, dim: int) -> Tensor:
    return tensor if indices is None else tensor.index_select(dim, torch.from_numpy(indices).to(tensor.device))


def _learn_from(
    both: list[tuple[nn.Module, dict[str, Tensor]]], layers: dict[str, _Layer], batch: Tensor, turn: _Turn
) -> None:
    """One pass of both networks over a batch; the cut one is repaired layer by layer as it runs."""

    def remember(name: str, use: int, x: Tensor, run: Callable[[], Any]) -> Any:
        """Run a layer of the original, and keep the rows that the cut layer is fitted to."""
        layer, result = layers[name], run()
        seen = result if layer.whole else x
        features = layer.left.shape[2] * (layer.left.shape[3] if layer.whole else 1)
        limit = int(max(ROWS, ROWS_PER_FEATURE * features) * turn.share / layer.consumer.uses)
        rows = chosen(len(seen), tuple(seen.shape[2:]), max(limit, 64), turn.seed, seen.device)
        layer.waiting[use] = (rows, at(seen, rows))
        return result

    def repair(name: str, use: int, z: Tensor, run: Callable[[], Any]) -> Any:
        """Refit a layer of the cut network on what it now reads, before it runs."""
        layer = layers[name]
        if use in layer.waiting:
            _learn(layer, *layer.waiting.pop(use), z, turn)
            if layer.fit is not None:
                _write(layer, layer.fit, both[1][1])
        return run()

    for (module, tensors), beside in zip(both, (remember, repair), strict=True):
        watched(module, (batch,), {name: tensors[name] for name in layers}, beside)


def _learn(layer: _Layer, rows: Rows, seen: Tensor, z: Tensor, turn: _Turn) -> None:
    """Add the rows to the layer's moments and fit again."""
    there, missing, energy = _whole_kernels(layer, rows, seen, z) if layer.whole else _channels(layer, rows, seen, z)
    training = turn.training(rows)
    parts = [
        moments(there[part], missing[part], layer.gram, float(energy[part].sum())) for part in (training, ~training)
    ]
    layer.train = parts[0] if layer.train is None else layer.train + parts[0]
    layer.held = parts[1] if layer.held is None else layer.held + parts[1]
    if not turn.fits or min(layer.train.rows, layer.held.rows) < 2:
        return
    first, layer.fit = FIRST if layer.fit is None else layer.fit.ridge, None
    if layer.train.missing <= NOTHING * layer.train.energy and layer.held.missing <= NOTHING * layer.held.energy:
        return
    holds = layer.consumer.shift is not None
    found = _constant(layer, rows, missing, energy, z) if holds and layer.whole else None
    found = found or fit(layer.train, layer.held, layer.gram, affine=holds, first=first)
    layer.fit = found if found.after < found.before else None


def _whole_kernels(layer: _Layer, rows: Rows, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(rows, g, k taps) patches of z, (rows, g, o) what the result lacks, (rows,) the result's energy."""
    c = layer.consumer
    y = _picked(y, c.made, 1).double()
    y = y if layer.bias is None else y - layer.bias
    y = y.reshape(len(y), c.groups, -1)
    there = patches(z, rows, c.sliding).double().reshape(len(y), c.groups, -1)
    got = torch.einsum("rgk,gok->rgo", there, layer.left.flatten(2))
    return there, y - got, y.square().sum((1, 2))


def _channels(layer: _Layer, rows: Rows, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(rows, g, k) channels of z, (rows, g, c) what of x is missing there, (rows,) the energy behind the weights."""
    c = layer.consumer
    x = _picked(x, c.entering, 1).double().reshape(len(x), c.groups, -1)
    there = at(z, rows).double().reshape(len(x), c.groups, -1)
    missing = x.clone()
    kept = slice(None) if c.kept is None else torch.from_numpy(c.kept).to(x.device)
    missing[:, :, kept] -= there
    return there, missing, torch.einsum("rgc,gcd,rgd->r", x, layer.gram, x)


def _constant(layer: _Layer, rows: Rows, missing: Tensor, energy: Tensor, z: Tensor) -> Fit | None:
    """Where all that is missing away from the padding is a constant, the constant alone: it is exact there."""
    clear = inside(rows, layer.consumer.sliding, z.shape[2:])
    if int(clear.sum()) < 2:
        return None
    centre = missing[clear].mean(0)
    spread = float((missing[clear] - centre).square().sum())
    if spread > CONSTANT * float(energy[clear].sum()):
        return None
    assert layer.held is not None
    nothing = torch.zeros_like(layer.left.flatten(2))
    gone = layer.held.missing / layer.held.energy if layer.held.energy > 0 else 0.0
    return Fit(nothing, centre, 0.0, max(gone, NOTHING), 0.0)


def _write(layer: _Layer, found: Fit, tensors: Mapping[str, Tensor]) -> None:
    """Put the repaired weight, and the constant, into the cut network's parameters."""
    c = layer.consumer
    if layer.whole:
        new, constant = layer.left + found.mix.reshape(layer.left.shape), found.shift.flatten()
    else:
        new = layer.left + torch.einsum("goct,gck->gokt", layer.weight, found.mix)
        constant = torch.einsum("goct,gc->go", layer.weight, found.shift).flatten()
    new = new.flatten(0, 1)
    if c.inputs == 0:
        new = new.transpose(0, 1)
    target = tensors[c.name]
    target.copy_(new.reshape(target.shape))
    if c.shift is not None and layer.base is not None:
        tensors[c.shift].copy_(layer.base + c.sign * constant)
