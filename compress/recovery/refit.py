"""One layer in work while `absorb` runs: what it is fitted to, the fit, and what is written into the cut network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from compress.recovery.consumers import Consumer
from compress.recovery.regression import FIRST, Fit, Moments, fit, moments
from compress.recovery.samples import Rows, at, inside, patches
from compress.recovery.streams import Join

FEATURES = 2_304  # what a regression may read: 256 channels through a 3 x 3 kernel
NOTHING = 1e-12  # of the result's energy: rounding, nothing to absorb
CONSTANT = 1e-9  # of the result's energy: so little variation is rounding


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the original gives at sampled rows: the result (or, in channels, the input), and the sum it comes to."""

    rows: Rows
    result: Tensor
    total: Tensor | None = None


@dataclass(slots=True)
class Layer:
    """A consumer in work. Weights are (g, outputs, channels, taps) in float64: `weight` reads x, `left` reads z.

    `whole` layers are fitted to whole patches. `gram` weighs errors, (g, c, c). `bias` is the layer's own, `base` what
    its shift was, both of kept outputs.
    """

    consumer: Consumer
    weight: Tensor
    left: Tensor
    whole: bool
    gram: Tensor
    bias: Tensor | None
    base: Tensor | None
    wanted: dict[int, Wanted] = field(default_factory=dict)
    waiting: dict[int, tuple[Wanted, Tensor, Tensor]] = field(default_factory=dict)
    train: Moments | None = None
    held: Moments | None = None
    fit: Fit | None = None
    changed: bool = False

    def forget(self) -> None:
        """Begin to collect anew; what was written stays until the next fit."""
        self.train = self.held = None


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows for the regression: `there` (rows, g, k taps), `missing` (rows, g, c), `energy` (rows,), all float64."""

    there: Tensor
    missing: Tensor
    energy: Tensor


def layer_of(consumer: Consumer, before: Mapping[str, Tensor]) -> Layer:
    """Prepare a consumer; `before` are the original's tensors."""
    weight = picked(before[consumer.name].detach().double(), consumer.made, 1 - consumer.inputs)
    if consumer.inputs == 0:
        weight = weight.transpose(0, 1)
    weight = weight.flatten(2) if weight.dim() > 2 else weight[..., None]
    weight = weight.reshape(consumer.groups, -1, *weight.shape[1:])
    left = picked(weight, consumer.kept, 2)
    whole = not consumer.convolution or (consumer.sliding is not None and left.shape[2] * left.shape[3] <= FEATURES)
    if whole:
        identity = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
        gram = identity.expand(consumer.groups, -1, -1)
    else:
        gram = torch.einsum("goct,godt->gcd", weight, weight)

    def kept(name: str | None) -> Tensor | None:
        return None if name is None else picked(before[name].detach().double(), consumer.made, 0)

    return Layer(consumer, weight, left, whole, gram, kept(consumer.bias), kept(consumer.shift))


def picked(tensor: Tensor, indices: np.ndarray | None, dim: int) -> Tensor:
    """The kept indices of a dimension; None keeps all."""
    return tensor if indices is None else tensor.index_select(dim, torch.from_numpy(indices).to(tensor.device))


def plain(layer: Layer, wanted: Wanted, z: Tensor) -> Sample:
    """What the layer's own result lacks when it reads z."""
    return _whole_kernels(layer, wanted, z) if layer.whole else _channels(layer, wanted, z)


def _whole_kernels(layer: Layer, wanted: Wanted, z: Tensor) -> Sample:
    c = layer.consumer
    y = picked(wanted.result, c.made, 1).double()
    y = y if layer.bias is None else y - layer.bias
    y = y.reshape(len(y), c.groups, -1)
    there = patches(z, wanted.rows, c.sliding).double().reshape(len(y), c.groups, -1)
    return Sample(there, y - _through(layer, there), y.square().sum((1, 2)))


def _through(layer: Layer, there: Tensor) -> Tensor:
    return torch.einsum("rgk,gok->rgo", there, layer.left.flatten(2))


def _channels(layer: Layer, wanted: Wanted, z: Tensor) -> Sample:
    c = layer.consumer
    x = picked(wanted.result, c.entering, 1).double()
    x = x.reshape(len(x), c.groups, -1)
    there = at(z, wanted.rows).double().reshape(len(x), c.groups, -1)
    missing = x.clone()
    kept = slice(None) if c.kept is None else torch.from_numpy(c.kept).to(x.device)
    missing[:, :, kept] -= there
    return Sample(there, missing, torch.einsum("rgc,gcd,rgd->r", x, layer.gram, x))


def in_stream(layer: Layer, wanted: Wanted, join: Join, y: Tensor, z: Tensor, now: Mapping[str, Tensor]) -> Sample:
    """What the sum lacks where the layer's result y comes to it, in units of y; errors are weighed as the sum's.

    `wanted.total` is the original's sum. `now` are the cut network's tensors: what was added before is counted in.
    """
    c = layer.consumer
    total = join.shaped(y)
    assert total is not None
    assert wanted.total is not None
    slope = _slope(join, y)
    layer.gram = torch.diag_embed(slope.square().reshape(c.groups, -1))
    lacks = picked(wanted.total, c.made, 1).double() - at(total, wanted.rows).double()
    alive = slope.abs() > 1e-6 * slope.abs().max()
    lacks = torch.where(alive, lacks / torch.where(alive, slope, 1.0), 0.0)
    there = patches(z, wanted.rows, c.sliding).double().reshape(len(lacks), c.groups, -1)
    added = at(y, wanted.rows).double()
    if c.bias is not None:
        added = added - now[c.bias].double()
    if c.shift is not None and layer.base is not None:
        added = added + c.sign * (now[c.shift].double() - layer.base)
    energy = (slope * at(y, wanted.rows).double()).square().sum(1)
    missing = (lacks + added).reshape(len(lacks), c.groups, -1) - _through(layer, there)
    return Sample(there, missing, energy)


def _slope(join: Join, y: Tensor) -> Tensor:
    """How the sum follows the layer's result, (outputs,): the path to it is affine for each channel."""
    zeros, ones = (join.path.through(torch.full_like(y, value)) for value in (0.0, 1.0))
    apart = (ones - zeros).reshape(y.shape).double()
    return apart[0].flatten(1)[:, 0] if y.dim() > 2 else apart[0]


def learn(layer: Layer, wanted: Wanted, sample: Sample, training: Tensor, z: Tensor, *, fits: bool) -> None:
    """Add the rows to the layer's moments, and where `fits` says so fit again; `training` (rows,) is not held out."""
    parts = [
        moments(sample.there[part], sample.missing[part], layer.gram, float(sample.energy[part].sum()))
        for part in (training, ~training)
    ]
    layer.train = parts[0] if layer.train is None else layer.train + parts[0]
    layer.held = parts[1] if layer.held is None else layer.held + parts[1]
    if not fits or min(layer.train.rows, layer.held.rows) < 2:
        return
    first, layer.fit = FIRST if layer.fit is None else layer.fit.ridge, None
    if layer.train.missing <= NOTHING * layer.train.energy and layer.held.missing <= NOTHING * layer.held.energy:
        return
    holds = layer.consumer.shift is not None
    found = _constant(layer, wanted.rows, sample, z) if holds and layer.whole else None
    found = found or fit(layer.train, layer.held, layer.gram, affine=holds, first=first)
    layer.fit = found if found.after < found.before else None


def _constant(layer: Layer, rows: Rows, sample: Sample, z: Tensor) -> Fit | None:
    """Where all that is missing away from the padding is a constant, the constant alone: it is exact there."""
    clear = inside(rows, layer.consumer.sliding, z.shape[2:])
    if int(clear.sum()) < 2:
        return None
    centre = sample.missing[clear].mean(0)
    spread = float((sample.missing[clear] - centre).square().sum())
    if spread > CONSTANT * float(sample.energy[clear].sum()):
        return None
    assert layer.held is not None
    nothing = torch.zeros_like(layer.left.flatten(2))
    gone = layer.held.missing / layer.held.energy if layer.held.energy > 0 else 0.0
    return Fit(nothing, centre, 0.0, max(gone, NOTHING), 0.0)


def write(layer: Layer, tensors: Mapping[str, Tensor]) -> None:
    """Put the fitted weight, and the constant, into the cut network's parameters; without a fit, what is left."""
    if layer.fit is None and not layer.changed:
        return
    c, found = layer.consumer, layer.fit
    layer.changed = True
    new, constant = layer.left, torch.zeros_like(layer.left[:, :, 0, 0])
    if found is not None and layer.whole:
        new, constant = layer.left + found.mix.reshape(layer.left.shape), found.shift
    elif found is not None:
        new = layer.left + torch.einsum("goct,gck->gokt", layer.weight, found.mix)
        constant = torch.einsum("goct,gc->go", layer.weight, found.shift)
    new = new.flatten(0, 1)
    if c.inputs == 0:
        new = new.transpose(0, 1)
    target = tensors[c.name]
    target.copy_(new.reshape(target.shape))
    if c.shift is not None and layer.base is not None:
        tensors[c.shift].copy_(layer.base + c.sign * constant.flatten())
