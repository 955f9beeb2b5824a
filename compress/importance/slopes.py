"""How a network's answer leans on the result of each of its layers: the second moments of the output's slope there.

With d the error of a layer's result y at one place, the answer changes to second order by

    1/2 E sum over places of (g . d)^2  =  1/2 tr(F E[d d^T]),     F = E sum over places of g g^T,   (outputs, outputs)

where slope and error are taken to be independent, and places as well (Martens & Grosse, arXiv:1503.05671; Grosse &
Martens, arXiv:1602.01407). What the answer is: for scores of classes (N, C) the Kullback-Leibler divergence to the
original's answer, so g is the gradient of the log-probability of a class drawn from the network's own answer, and no
label is looked at; for any other output its squared error relative to its size, with g the gradient of
(r . output) / |output|, r random signs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from compress.graph.modules import quiet_module, set_mode
from compress.graph.trace import tensors_in
from compress.graph.watch import Names

SEED = 0
DRAWS = 2  # classes drawn for each input
PIXELS = 2**20  # numbers of the inputs of one backward pass: a network keeps a hundred times as many for it
REASON = 160  # letters of PyTorch's own words
ROWS = 2_048  # places of a layer's result that are looked at in one backward pass, drawn at random


class NoSlopes(Exception):  # noqa: N818 - no error: the criterion does without
    """Why a network has no slopes, in words."""


def slopes(
    module: nn.Module, inputs: Sequence[Tensor], kernels: Mapping[str, Tensor], *, fixed: bool = False
) -> dict[str, Tensor]:
    """F for the result of every weight in `kernels` that the backward pass meets, (outputs, outputs) float64.

    One forward and `DRAWS` backward passes over the inputs, in smaller batches where inputs are large unless the batch
    size is `fixed`; no gradient of a parameter is computed. Raises NoSlopes where the output does not follow the input
    smoothly (integers in, or an operator without a gradient).
    """
    total = sum(len(batch) for batch in inputs)
    watch = _Backward(kernels, 1.0 / (max(total, 1) * DRAWS))
    generator = torch.Generator().manual_seed(SEED)
    flags = {p: p.requires_grad for p in module.parameters()}
    try:
        with quiet_module(module), torch.enable_grad():
            set_mode(module, train=False)
            for p in flags:
                p.requires_grad_(False)
            for batch in inputs if fixed else _smaller(inputs):
                if not batch.is_floating_point():
                    raise NoSlopes("its inputs are whole numbers")
                given = batch.detach().clone().requires_grad_(True)
                answer = [t for t in tensors_in(module(given.clone())) if t.requires_grad]
                for draw in range(DRAWS):
                    scalar = _scalar(answer, generator)
                    with watch:
                        torch.autograd.grad(scalar, given, retain_graph=draw + 1 < DRAWS)
    except (RuntimeError, NotImplementedError) as error:  # the user's code detaches, or an operator has no gradient
        raise NoSlopes(" ".join(str(error).split())[:REASON] or type(error).__name__) from error
    finally:
        for p, flag in flags.items():
            p.requires_grad_(flag)
    return watch.found


def _smaller(inputs: Sequence[Tensor]) -> Iterator[Tensor]:
    for batch in inputs:
        yield from batch.split(max(PIXELS // max(batch[:1].numel(), 1), 1))


def _scalar(answer: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    """What the slopes are taken of, summed over the inputs of the batch."""
    if len(answer) == 1 and answer[0].dim() == 2 and answer[0].shape[1] > 1:
        label = torch.multinomial(answer[0].detach().double().softmax(1).cpu(), 1, generator=generator)[:, 0]
        return F.cross_entropy(answer[0], label.to(answer[0].device), reduction="sum")
    total = torch.zeros(())
    for out in answer:
        signs = torch.randint(2, out.shape, generator=generator).to(out) * 2 - 1
        size = out.detach().square().sum() / max(len(out), 1)
        total = total.to(out) + (signs * out).sum() / size.sqrt().clamp_min(torch.finfo(out.dtype).tiny)
    return total


class _Backward(TorchDispatchMode):
    """Sums g g^T at every weight that a backward pass multiplies with; which one is told by its address."""

    def __init__(self, kernels: Mapping[str, Tensor], share: float) -> None:
        """`share` is what one input counts."""
        super().__init__()
        self.names = Names(kernels)
        self.share = share
        self.found: dict[str, Tensor] = {}
        self.generator = torch.Generator().manual_seed(SEED)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Note what comes back to a layer, then run the operator."""
        kind = str(func.overloadpacket)
        if kind == "aten.convolution_backward":
            self._note(args[0], args[2], 1)
        elif kind == "aten.mm":
            self._note(args[0], args[1], 1)
            self._note(args[1].mT, args[0].mT, 1)
        return func(*args, **(kwargs or {}))

    def _note(self, slope: Tensor, weight: Tensor, dim: int) -> None:
        name = self.names.of(weight)
        if name is None:
            return
        rows = slope.detach().movedim(dim, -1).flatten(0, -2)
        share = self.share
        if len(rows) > ROWS:
            share *= len(rows) / ROWS
            rows = rows[torch.randint(len(rows), (ROWS,), generator=self.generator).to(rows.device)]
        moment = (rows.mT @ rows).double() * share
        if name in self.found and self.found[name].shape != moment.shape:
            return  # used turned round as well: how it was met first counts
        self.found[name] = self.found[name] + moment if name in self.found else moment
