"""Output shapes of the operators that networks are mostly made of, on meta tensors.

PyTorch's own meta kernels for these run through Python decompositions, and would be most of an analysis' time. What is
not here asks PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
Kernel = Callable[..., Any]


def _like(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return torch.empty_like(x)


def _same(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x


def _binary(x: Any, y: Any, *_: Any, **__: Any) -> Any:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        return NotImplemented
    if isinstance(y, Tensor):
        if x.dtype != y.dtype or x.device != y.device:
            return NotImplemented
        if x.shape != y.shape:
            return x.new_empty(torch.broadcast_shapes(x.shape, y.shape))
    return torch.empty_like(x)


def _binary_inplace(x: Any, y: Any, *_: Any, **__: Any) -> Any:
    fits = isinstance(x, Tensor) and isinstance(y, Tensor) and x.shape == y.shape and x.dtype == y.dtype
    return x if fits else NotImplemented


def _batch_norm(x: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty(0), x.new_empty(0)


def _layer_norm(x: Tensor, shape: list[int], *_: Any, **__: Any) -> tuple[Tensor, Tensor, Tensor]:
    stats = x.shape[: x.dim() - len(shape)] + (1,) * len(shape)
    return torch.empty_like(x), x.new_empty(stats), x.new_empty(stats)


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
    return x.new_empty(out)


KERNELS: dict[Any, Kernel] = {
    aten.convolution.default: _convolution,
    aten.native_batch_norm.default: _batch_norm,
    aten.native_layer_norm.default: _layer_norm,
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


def shaped(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operator on meta tensors: shapes only."""
    kernel = KERNELS.get(func)
    if kernel is not None and all(a.is_meta for a in args if isinstance(a, Tensor)):
        out = kernel(*args, **kwargs)
        if out is not NotImplemented:
            return out
    return func(*args, **kwargs)
