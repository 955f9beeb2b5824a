"""Run a network's products in bfloat16: half the memory, and on some processors several times the speed.

bfloat16 has float32's range and 8 bits of precision; processors that multiply it sum in float32. Their units take rows
of 16 pixels, so that convolutions with short rows run as one product of matrices, in which all pixels are one column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

from compress.graph.modules import walk
from compress.graph.prefix import Form, Held, Made

_PRODUCTS = frozenset({"convolution", "addmm", "mm", "bmm", "baddbmm"})
_SHORT = 6  # pixels of a row of the output, up to which the product of matrices was faster


def narrow(x: Tensor) -> Tensor:
    """Return a float32 tensor in bfloat16, images (N, C, H, W) with their channels last in memory; others as they are.

    >>> narrow(torch.ones(2)).dtype, narrow(torch.ones(2, dtype=torch.int64)).dtype
    (torch.bfloat16, torch.int64)
    """
    if x.dtype not in {torch.float32, torch.bfloat16}:
        return x
    return x.to(torch.bfloat16, memory_format=torch.channels_last) if x.dim() == 4 else x.to(torch.bfloat16)


def narrowed(held: Mapping[int, Held]) -> dict[int, Held]:
    """Return what is held in bfloat16, so that every variant begins with it; what several places hold is cast once."""
    known: dict[int, Tensor] = {}
    made: dict[int, list[Made]] = {}

    def cast(x: Tensor) -> Tensor:
        if id(x) not in known:
            known[id(x)] = narrow(x)
        return known[id(x)]

    def forms(found: Sequence[Made]) -> list[Made]:
        if id(found) not in made:
            made[id(found)] = [replace(m, leaves=tuple(_form(leaf) for leaf in m.leaves)) for m in found]
        return made[id(found)]

    return {
        at: replace(one, made=forms(one.made), values={v: cast(x) for v, x in one.values.items()})
        for at, one in held.items()
    }


def _form(leaf: Any) -> Any:
    wide = isinstance(leaf, Form) and leaf.dtype == torch.float32
    return replace(leaf, dtype=torch.bfloat16) if wide else leaf


@contextmanager
def narrow_biases(module: nn.Module, cast: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Put the biases of convolutions in the type that `cast` gives, as these compare it with their input's."""
    convolutions = [part for _, part in walk(module) if isinstance(part, _ConvNd) and part.bias is not None]
    tables: list[dict[str, Any]] = [part._parameters for part in convolutions]
    before = [table["bias"] for table in tables]
    try:
        for table, bias in zip(tables, before, strict=True):
            table["bias"] = cast(bias)
        yield
    finally:
        for table, bias in zip(tables, before, strict=True):
            table["bias"] = bias


def supported() -> bool:
    """Whether PyTorch's library for convolutions has kernels for bfloat16 on this processor; it may still be slow."""
    ask = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return bool(torch.backends.mkldnn.is_available() and ask is not None and ask())


@dataclass(slots=True)
class Narrow:
    """Runs an operator, products of matrices and convolutions on bfloat16 operands; parameters are cast once."""

    parameters: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def __call__(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run `func`; RuntimeError where operands of two types do not go together."""
        if func.overloadpacket.__name__ in _PRODUCTS:
            args = tuple(self.cast(a) if isinstance(a, Tensor) else a for a in args)
            if func is torch.ops.aten.convolution.default and _is_short(*args[:7], groups=args[8]):
                return _unfolded(*args[:5])
        return func(*args, **kwargs)

    def cast(self, x: Tensor) -> Tensor:
        """Return the operand in bfloat16, a parameter always the same tensor."""
        if not isinstance(x, nn.Parameter):
            return narrow(x)
        found = self.parameters.get(id(x))
        if found is None:
            found = self.parameters[id(x)] = x, narrow(x.detach())  # an id names one object only while it lives
        return found[1]


def _is_short(
    x: Tensor,
    weight: Tensor,
    _bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    *,
    groups: int,
) -> bool:
    """Whether it is a plain convolution of images, with a kernel of several pixels and short rows as output."""
    if x.dim() != 4 or transposed or groups != 1 or set(dilation) != {1} or weight[0, 0].numel() == 1:
        return False
    return 0 < _length(x.shape[3], weight.shape[3], stride[-1], padding[-1]) <= _SHORT


def _length(size: int, kernel: int, stride: int, padding: int) -> int:
    return (size + 2 * padding - kernel) // stride + 1


def _unfolded(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], padding: Sequence[int]) -> Tensor:
    """(N, C, H, W) convolved with (O, C, h, w), both with channels last in memory: every patch times all kernels."""
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, padding[-1], padding[-1], padding[0], padding[0])).contiguous()
    channels, (high, wide) = x.shape[1], weight.shape[2:]
    rows = _length(x.shape[2], high, stride[0], padding[0])
    columns = _length(x.shape[3], wide, stride[-1], padding[-1])
    image, row, pixel, _ = padded.stride()
    patches = padded.as_strided(
        (len(x), rows, columns, high, wide, channels), (image, row * stride[0], pixel * stride[-1], row, pixel, 1)
    )
    kernels = weight.permute(0, 2, 3, 1).reshape(len(weight), -1)
    out = F.linear(patches.reshape(-1, kernels.shape[1]), kernels, bias)
    return out.view(len(x), rows, columns, -1).permute(0, 3, 1, 2)
