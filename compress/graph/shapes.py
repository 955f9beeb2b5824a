"""Output shapes of the operators that networks are mostly made of, on meta tensors.

PyTorch's own meta kernels for these run through Python decompositions, and would be most of an analysis' time. What is
not here asks PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
META = torch.device("meta")
Kernel = Callable[..., Any]


def _new(x: Tensor, shape: Sequence[int]) -> Tensor:
    """A tensor of x's type; `x.new_empty` takes twice, `torch.empty_like` ten times as long on meta."""
    return torch.empty(shape, dtype=x.dtype, device=META)


def empty_as(x: Tensor) -> Tensor:
    """A meta tensor in the place of a parameter or buffer."""
    plain = type(x) in (Tensor, torch.nn.Parameter) and x.is_contiguous()
    return _new(x, x.shape) if plain else torch.empty_like(x, device=META)


def _like(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return _new(x, x.shape) if x.is_contiguous() else torch.empty_like(x)


def _same(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x


def _binary(x: Any, y: Any, *_: Any, **__: Any) -> Any:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        return NotImplemented
    if isinstance(y, Tensor):
        if x.dtype != y.dtype:
            return NotImplemented
        if x.shape != y.shape:
            return _new(x, torch.broadcast_shapes(x.shape, y.shape))
    return _like(x)


def _binary_inplace(x: Any, y: Any, *_: Any, **__: Any) -> Any:
    fits = isinstance(x, Tensor) and isinstance(y, Tensor) and x.shape == y.shape and x.dtype == y.dtype
    return x if fits else NotImplemented


def _batch_norm(x: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _like(x), _NOTHING, _NOTHING


_NOTHING = torch.empty(0, device=META)  # the statistics that a batch norm saves for a gradient


def _layer_norm(x: Tensor, shape: list[int], *_: Any, **__: Any) -> tuple[Tensor, Tensor, Tensor]:
    stats = x.shape[: x.dim() - len(shape)] + (1,) * len(shape)
    return _new(x, x.shape), _new(x, stats), _new(x, stats)


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    _output_padding: list[int],
    groups: int,
) -> Any:
    n = len(stride)
    if transposed or x.dim() != n + 2 or len(padding) != n or len(dilation) != n or x.dtype != weight.dtype:
        return NotImplemented
    if x.shape[1] != weight.shape[1] * groups or (bias is not None and bias.shape[0] != weight.shape[0]):
        return NotImplemented  # PyTorch's own kernel says what is wrong
    out = [x.shape[0], weight.shape[0]]
    for d in range(n):
        size = x.shape[d + 2] + 2 * padding[d] - dilation[d] * (weight.shape[d + 2] - 1) - 1
        if size < 0:
            return NotImplemented
        out.append(size // stride[d] + 1)
    return _new(x, out)


def _product(x: Tensor, y: Tensor) -> Any:
    """Matrix product of two matrices or two batches of them."""
    if x.dim() != y.dim() or x.shape[:-2] != y.shape[:-2] or x.shape[-1] != y.shape[-2] or x.dtype != y.dtype:
        return NotImplemented
    return _new(x, (*x.shape[:-1], y.shape[-1]))


def _addmm(bias: Tensor, x: Tensor, y: Tensor, **_: Any) -> Any:
    if bias.shape not in (y.shape[1:], (x.shape[0], *y.shape[1:])) or bias.dtype != x.dtype:
        return NotImplemented
    return _product(x, y)


def _softmax(x: Tensor, _dim: int, dtype: Any = None) -> Any:
    return _like(x) if dtype in (None, x.dtype) else NotImplemented


def _mean(x: Tensor, dim: Any, keepdim: bool = False, *, dtype: Any = None) -> Any:
    if not dim or dtype is not None or not x.is_floating_point():
        return NotImplemented
    over = {d % x.dim() for d in dim}
    return _new(x, [1 if d in over else n for d, n in enumerate(x.shape) if keepdim or d not in over])


def _cat(parts: list[Tensor], dim: int = 0) -> Any:
    first = parts[0]
    at = dim % max(first.dim(), 1)
    before, after = first.shape[:at], first.shape[at + 1 :]
    for part in parts:
        if part.dtype != first.dtype or not part.is_meta or not part.is_contiguous():
            return NotImplemented
    shapes = [part.shape for part in parts]
    for shape in set(shapes):
        if len(shape) != first.dim() or shape[:at] != before or shape[at + 1 :] != after:
            return NotImplemented
    return _new(first, (*before, sum([shape[at] for shape in shapes]), *after))


KERNELS: dict[Any, Kernel] = {
    aten.convolution.default: _convolution,
    aten.native_batch_norm.default: _batch_norm,
    aten.native_layer_norm.default: _layer_norm,
    aten.mm.default: _product,
    aten.bmm.default: _product,
    aten.addmm.default: _addmm,
    aten._safe_softmax.default: _softmax,
    aten.mean.dim: _mean,
    aten.cat.default: _cat,
    aten.mul.Scalar: _binary,
    aten.add.Tensor: _binary,
    aten.mul.Tensor: _binary,
    aten.sub.Tensor: _binary,
    aten.div.Tensor: _binary,
    aten.add_.Tensor: _binary_inplace,
    aten.mul_.Tensor: _binary_inplace,
}
for _name in ("relu", "hardswish", "hardsigmoid", "silu", "sigmoid", "gelu", "hardtanh", "leaky_relu", "elu", "tanh"):
    KERNELS[getattr(aten, _name).default] = _like
    if hasattr(aten, f"{_name}_"):
        KERNELS[getattr(aten, f"{_name}_").default] = _same
_BY_ID = {id(func): kernel for func, kernel in KERNELS.items()}  # hashing an operator runs Python code


def shaped(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operator on meta tensors: shapes only."""
    kernel = _BY_ID.get(id(func))
    if kernel is None:
        return func(*args, **kwargs)
    for a in args:
        if isinstance(a, Tensor) and not a.is_meta:
            return func(*args, **kwargs)
    out = kernel(*args, **kwargs)
    return func(*args, **kwargs) if out is NotImplemented else out
