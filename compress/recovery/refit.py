"""One layer in work while `absorb` runs: what it is fitted to, the fit, and what is written into the cut network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from compress.recovery.consumers import Consumer
from compress.recovery.regression import FIRST, Fit, Moments, fit, moments
from compress.recovery.samples import Rows, at, patches
from compress.recovery.streams import Join

FEATURES = 2_304  # what a regression may read: 256 channels through a 3 x 3 kernel
NOTHING = 1e-12  # of the result's energy: rounding, nothing to absorb


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
    its shift was, both of kept outputs. `steady` (g, channels) has the value of what the layer reads where that is the
    same in all inputs and places, NaN elsewhere; `leaving` (g, channels) says what leaves and nothing took over.
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
    steady: Tensor | None = None
    leaving: Tensor | None = None
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


def steady(layer: Layer, x: Tensor) -> None:
    """Note which channels of the original's input x (images, channels, *) are constant, over all batches so far."""
    c = layer.consumer
    if c.kept is None:
        return
    flat = picked(x, c.entering, 1).transpose(0, 1).flatten(1)
    low, high = flat.amin(1), flat.amax(1)
    still = high - low <= 8 * torch.finfo(x.dtype).eps * torch.maximum(low.abs(), high.abs())
    value = torch.where(still, high, torch.nan).double().reshape(c.groups, -1)
    apart = torch.nan if layer.steady is None else (value - layer.steady).abs()
    same = torch.ones_like(value, dtype=torch.bool) if layer.steady is None else apart <= 1e-6 * value.abs()
    layer.steady = torch.where(same, value, torch.nan)


def fold(layer: Layer) -> bool:
    """Let a constant channel that stays take over the constant ones that leave: exact, at zero-padded borders as well.

    W_k <- W_k + sum over r of W_r v_r / v_k, v the constants' values, k the largest of those that stay. Where none
    stays, constants are left to the shift, which is exact where no tap meets the padding. Returns whether constants
    are all that leaves, and the layer can let them go.
    """
    c = layer.consumer
    if c.kept is None or layer.steady is None:
        return True
    stays = torch.zeros(layer.weight.shape[2], dtype=torch.bool, device=layer.weight.device)
    stays[torch.from_numpy(c.kept).to(stays.device)] = True
    layer.left = layer.weight[:, :, stays].clone()
    layer.leaving = (~stays).expand(c.groups, -1).clone()
    for group, values in enumerate(layer.steady):
        sizes = torch.where(stays & ~values.isnan(), values.abs(), 0.0)
        gone = ~stays & ~values.isnan()
        k = int(sizes.argmax())
        if not bool(gone.any()) or float(sizes[k]) <= 1e-6 * float(values[gone].abs().max()):
            continue
        shares = values[gone] / values[k]
        layer.left[group, :, int(stays[:k].sum())] += torch.einsum("oct,c->ot", layer.weight[group][:, gone], shares)
        layer.leaving[group] &= values.isnan()
        layer.changed = True
    open_ones = layer.leaving & (layer.steady != 0)  # NaN is not 0
    return not bool(open_ones.any()) or (c.shift is not None and not bool(layer.steady[open_ones].isnan().any()))


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


def learn(layer: Layer, sample: Sample, training: Tensor, *, fits: bool) -> None:
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
    found = fit(layer.train, layer.held, layer.gram, affine=holds, first=first)
    layer.fit = found if found.after < found.before else None


def settle(layer: Layer) -> None:
    """Where all that left is constant: what no channel took over goes to the shift, and nothing is fitted."""
    values = torch.zeros_like(layer.weight[:, 0, :, 0])
    if layer.leaving is not None and layer.steady is not None:
        values = torch.where(layer.leaving, layer.steady, 0.0)
    if not bool(values.any()):
        layer.fit = None
        return
    rows = layer.left.flatten(2) if layer.whole else layer.left.new_zeros(*values.shape, layer.left.shape[2])
    shift = torch.einsum("goct,gc->go", layer.weight, values) if layer.whole else values
    layer.fit = Fit(torch.zeros_like(rows), shift, 0.0, 1.0, 0.0)


def write(layer: Layer, tensors: Mapping[str, Tensor]) -> None:
    """Put the fitted weight, and the constant, into the cut network's parameters; without a fit, what is left."""
    if layer.fit is None and not layer.changed:
        return  # as it was cut
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
