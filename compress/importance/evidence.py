"""What a network does on a few inputs: what its layers read, and how its loss leans on its weights.

Gathered when a criterion first asks, in one pass each, and remembered for the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.core.errors import UsageError
from compress.graph.modules import quiet_module, set_mode, tensors_of
from compress.graph.watch import Call, watched, weight_of
from compress.importance.slopes import NoSlopes, slopes

ROWS = 16_384  # places that a layer is sampled at, over all batches
WIDE = 4_096  # inputs of a layer whose covariance is a matrix of at most 128 MiB
GRADIENTS = 128  # inputs whose gradients are taken one by one
SEED = 0


@dataclass(frozen=True, slots=True)
class Reads:
    """What a weight reads, over sampled places of its c input channels, float64.

    size (c,) is E|x|, alive (c,) the fraction of places with x != 0, square (c,) E x^2, and covariance is (c, c): where
    a kernel meets zero padding, over what its taps read, so that a constant that ends at the border is none. For layers
    that read more than `WIDE` inputs (a flattened image) it is the variances alone, (c,).
    """

    size: Tensor
    alive: Tensor
    square: Tensor
    covariance: Tensor


@dataclass(slots=True)
class _Sums:
    rows: int
    size: Tensor
    alive: Tensor
    square: Tensor
    taps: int
    mean: Tensor
    products: Tensor


@dataclass(frozen=True)
class Evidence:
    """A network with inputs (batches, batch first), and the labels of each batch where there are some.

    `fixed` tells that the network takes no other batch size. Names are those of the part at `submodule` where one is
    named; the whole network runs all the same.
    """

    module: nn.Module
    inputs: tuple[Tensor, ...]
    labels: tuple[Tensor, ...] | None = None
    submodule: str = ""
    fixed: bool = False
    memo: dict[str, Any] = field(init=False, default_factory=dict, compare=False)  # what criteria derive from it

    @property
    def _part(self) -> nn.Module:
        return self.module.get_submodule(self.submodule)

    @cached_property
    def reads(self) -> dict[str, Reads]:
        """What every weight reads, by the weight's name.

        Absent are weights that are not parameters of their own, or that are used in two ways (as a transposed
        convolution too).
        """
        kernels = {name: t for name, t in tensors_of(self._part).items() if t.dim() > 1 and not _depthwise(t)}
        share = 1 / max(len(self.inputs), 1)
        found: dict[str, _Sums] = {}
        ways: dict[str, set[tuple[bool, torch.Size]]] = {}

        def beside(name: str, use: int, x: Tensor, call: Call) -> Any:
            """Add what the weight reads to its sums, then run the operator."""
            del use
            way = str(call.func.overloadpacket).endswith("convolution") and bool(call.args[6])
            ways.setdefault(name, set()).add((way, weight_of(call).shape))
            if len(ways[name]) > 1:
                return call()
            limit = max(int(ROWS * share), 16)
            places = _places(x, kernels[name], limit)
            taps = _taps(x, kernels[name], call, limit)
            found[name] = _added(found.get(name), places, places if taps is None else taps)
            return call()

        with torch.no_grad():
            for batch in self.inputs:
                watched(self.module, (batch,), kernels, beside)
        return {name: _finished(sums) for name, sums in found.items() if len(ways[name]) == 1}

    @cached_property
    def slopes(self) -> dict[str, Tensor]:
        """How the network's answer leans on what every weight makes; see `slopes.py`.

        Empty where it has no slope; the memo then says why, under "no slopes".
        """
        kernels = {name: t for name, t in tensors_of(self._part).items() if t.dim() > 1 and not _depthwise(t)}
        try:
            return slopes(self.module, self.inputs, kernels, fixed=self.fixed)
        except NoSlopes as error:
            self.memo["no slopes"] = str(error)
            return {}

    @cached_property
    def gradients(self) -> dict[str, Tensor]:
        """Mean gradient of the cross-entropy, by parameter name."""
        assert self.labels is not None
        total: dict[str, Tensor] = {}
        count = sum(len(batch) for batch in self.inputs)
        with _differentiable(self.module, self._part) as parameters:
            for batch, labels in zip(self.inputs, self.labels, strict=True):
                loss = F.cross_entropy(self.module(batch.clone()), labels, reduction="sum") / count
                for name, gradient in _gradients(loss, parameters).items():
                    total[name] = total[name] + gradient if name in total else gradient
        return total

    @cached_property
    def curvature(self) -> dict[str, Tensor]:
        """Diagonal of the Fisher matrix: mean squared gradient, labels drawn from the network's own answers."""
        if self.fixed:
            raise UsageError(
                "importance 'hessian' takes gradients one input at a time, and the network has a fixed batch size",
                fix="use --importance reconstruction",
            )
        total: dict[str, Tensor] = {}
        inputs = torch.cat(self.inputs)[:GRADIENTS]
        generator = torch.Generator().manual_seed(SEED)
        with _differentiable(self.module, self._part) as parameters:
            for one in inputs.split(1):
                out = self.module(one.clone())
                label = torch.multinomial(out.detach().softmax(1).cpu(), 1, generator=generator)[:, 0].to(out.device)
                for name, gradient in _gradients(F.cross_entropy(out, label), parameters).items():
                    square = gradient.square() / len(inputs)
                    total[name] = total[name] + square if name in total else square
        return total


def _added(old: _Sums | None, x: Tensor, taps: Tensor) -> _Sums:
    """Add rows x (rows, c), and what taps read (rows, c), to the sums."""
    alive = (x != 0).double().sum(0)
    products = taps.mT @ taps if taps.shape[1] <= WIDE else taps.square().sum(0)
    new = _Sums(len(x), x.abs().sum(0), alive, x.square().sum(0), len(taps), taps.sum(0), products)
    if old is None:
        return new
    keys = ("rows", "size", "alive", "square", "taps", "mean", "products")
    return _Sums(*(getattr(old, key) + getattr(new, key) for key in keys))


def _gradients(loss: Tensor, parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    try:
        found: tuple[Tensor | None, ...] = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    except RuntimeError as error:  # the user's code detaches, or recomputes in a way that takes no such gradients
        raise UsageError(
            f"no gradient comes back through the network: {' '.join(str(error).split())[:160]}",
            fix="use --importance reconstruction or activation, which need none",
        ) from error
    return {name: g.detach() for name, g in zip(parameters, found, strict=True) if g is not None}


@contextmanager
def _differentiable(module: nn.Module, part: nn.Module) -> Iterator[dict[str, nn.Parameter]]:
    """Let gradients flow to every parameter of the part; flags and modes are afterwards as they were."""
    parameters = {name: p for name, p in part.named_parameters() if p.is_floating_point()}
    flags = {name: p.requires_grad for name, p in parameters.items()}
    try:
        with quiet_module(module), torch.enable_grad():
            set_mode(module, train=False)
            for p in parameters.values():
                p.requires_grad_(True)
            yield parameters
    finally:
        for name, p in parameters.items():
            p.requires_grad_(flags[name])


def _depthwise(weight: Tensor) -> bool:
    """Whether a kernel reads one channel only, so that nothing can leave what it reads."""
    return weight.dim() > 2 and weight.shape[1] == 1


def _places(x: Tensor, weight: Tensor, limit: int) -> Tensor:
    """At most `limit` random places of what a weight reads, (rows, channels), float64."""
    flat = x.flatten(2).movedim(1, 2).flatten(0, 1) if weight.dim() > 2 else x  # (rows, channels)
    if len(flat) > limit:
        chosen = torch.randint(len(flat), (limit,), generator=torch.Generator().manual_seed(SEED))
        flat = flat[chosen.to(flat.device)]
    return flat.double()


def _taps(x: Tensor, weight: Tensor, call: Call, limit: int) -> Tensor | None:
    """What random taps of the kernel read at random places of the result, (limit, channels); None without padding."""
    if weight.dim() < 3 or len(call.args) < 7 or bool(call.args[6]) or not any(call.args[4]):
        return None
    generator = torch.Generator().manual_seed(SEED)
    index, inside = [torch.randint(len(x), (limit,), generator=generator)], torch.ones(limit, dtype=torch.bool)
    moves = (([*given] * 3)[: x.dim() - 2] for given in call.args[3:6])
    for extent, kernel, stride, padding, dilation in zip(x.shape[2:], weight.shape[2:], *moves, strict=True):
        places = (extent + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        place, tap = (torch.randint(n, (limit,), generator=generator) for n in (places, kernel))
        spot = place * stride + tap * dilation - padding
        inside &= (spot >= 0) & (spot < extent)
        index.append(spot.clamp(0, extent - 1))
    image, *spots = (one.to(x.device) for one in index)
    rows: Tensor = x.movedim(1, -1)[(image, *spots)]
    return rows.double() * inside.to(x.device)[:, None]


def _finished(sums: _Sums) -> Reads:
    n, mean = sums.rows, sums.mean / sums.taps
    covariance = sums.products / sums.taps - (torch.outer(mean, mean) if sums.products.dim() > 1 else mean.square())
    return Reads(sums.size / n, sums.alive / n, sums.square / n, covariance)
